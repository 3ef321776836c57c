"""Settings: which networks are joined, and how curves are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say how a curve is trained, and when it is looked at.

    Attributes:
        seeds: of the pairs (reference, target).
        checkpoints: steps of training after which a curve is measured, ascending.
        points: of the curve, odd, that are measured.
        rate, batch_size, weight_decay: of SGD with momentum 0.9 on the bend.
        alternation_steps: of permutations at a fixed bend, the first half of a round of proximal
            alternation; 0 leaves it out.
        match_images: training images that alignments learn from.
        recipe: of the alignment.
        tolerance: by how much the lowest accuracy on a curve may be below that of the worse end.
    """

    seeds: tuple[tuple[int, int], ...] = ((0, 1), (2, 3))
    checkpoints: tuple[int, ...] = (0, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640)
    points: int = 11
    rate: float = 0.01
    batch_size: int = 128
    weight_decay: float = 0.0
    alternation_steps: int = 100
    match_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)
    tolerance: float = 0.003


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/curves/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").tolerance
    0.003
    """
    return read_setting(Setting, SETTINGS, name)
