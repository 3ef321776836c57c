"""Settings: which networks are joined, and how curves are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Way:
    """Say how a bend is trained.

    Attributes:
        rate: at its highest.
        optimizer: SGD with momentum 0.9, or Adam with decays of 0.9 and 0.99.
        distilled: share of the mean probabilities of both ends in what is learned, beside labels. Labels alone make
            networks on a long trained bend surer of themselves than the ends are.
        annealed: let the rate fall to zero by a cosine, and else keep it.
        augmented: shift images and mirror half of them.
        mirrored: mirror half of them alone, which stay in their places as those that are tested do.
        weight_decay: of the network at the point of the curve.
    """

    rate: float = 0.02
    annealed: bool = True
    augmented: bool = False
    mirrored: bool = False
    weight_decay: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    distilled: float = 0.0

    def __str__(self) -> str:
        """Tell it in words.

        >>> str(Way(0.1, weight_decay=5e-4))
        'rate 0.1, annealed, decay 0.0005'
        """
        words = ["Adam"] if self.optimizer == "adam" else []
        words += [f"rate {self.rate:g}", "annealed" if self.annealed else "constant"]
        words += ["augmented"] if self.augmented else ["mirrored"] if self.mirrored else []
        words += [f"decay {self.weight_decay:g}"] if self.weight_decay else []
        return ", ".join(words + ([f"distilled {self.distilled:g}"] if self.distilled else []))


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say how a curve is trained, and when it is looked at.

    Attributes:
        seeds: of the pairs (reference, target).
        budgets: steps of training, ascending, each a curve of its own that is measured after them.
        points: of the curve, odd, that are measured.
        ways: to train the bend. Of several, each curve takes the one whose mean loss along the curve is lowest on
            held-out images after `pilot` steps.
        pilot: steps of each way before one is taken; as many as a curve needs, as short ones favour constant rates.
        batch_size: of SGD on the bend.
        alternation_steps: of permutations at a fixed bend, the first half of a round of proximal
            alternation; 0 leaves it out.
        match_images: training images that alignments learn from.
        norm_images: training images on which batch norm is measured at every point.
        recipe: of the alignment.
        tolerance: by how much the lowest accuracy on a curve may be below that of the worse end.
    """

    seeds: tuple[tuple[int, int], ...] = ((0, 1), (2, 3))
    budgets: tuple[int, ...] = (0, 10, 20, 40, 80, 160, 320, 640, 1280)
    points: int = 11
    ways: tuple[Way, ...] = (Way(),)
    pilot: int = 160
    batch_size: int = 128
    alternation_steps: int = 100
    match_images: int = 2000
    norm_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)
    tolerance: float = 0.003


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/curves/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").tolerance
    0.003
    """
    return read_setting(Setting, SETTINGS, name)
