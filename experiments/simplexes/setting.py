"""Settings: which networks are joined by simplexes, and how vertices are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Way:
    """Say how vertices are trained, by SGD with momentum 0.9.

    Attributes:
        rate: at its highest.
        annealed: let it fall to zero by a cosine while each vertex is trained, and else keep it.
        volume_weight: of the logarithm of the volume.
    """

    rate: float = 0.05
    annealed: bool = True
    volume_weight: float = 1e-6

    def __str__(self) -> str:
        """Tell it in words.

        >>> str(Way(0.1))
        'rate 0.1, annealed, volume 1e-06'
        """
        kind = "annealed" if self.annealed else "constant"
        return f"rate {self.rate:g}, {kind}, volume {self.volume_weight:g}"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say what is joined.

    Attributes:
        triples: of networks, each of other seeds.
        vertices: learned ones of the simplex.
        epochs: for each of them.
        ways: to train vertices. Of several, each simplex takes the one whose ensemble has the least loss on held-out
            images.
        weight_decay, batch_size: of SGD on vertices.
        points: of the complex at which the loss of a batch is taken.
        samples: networks of an ensemble that is drawn from a simplex.
        concentrations: of the Dirichlet distribution of their shares; at 1 all of a simplex is equally likely, below
            its corners are more so. Of several, each simplex takes the one that is best on held-out images.
        match_images: training images that alignments learn from.
        recipe: of the alignments.
    """

    triples: int = 2
    vertices: int = 1
    epochs: int = 5
    ways: tuple[Way, ...] = (Way(),)
    weight_decay: float = 5e-4
    batch_size: int = 100
    points: int = 2
    samples: int = 25
    concentrations: tuple[float, ...] = (1.0,)
    match_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/simplexes/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").samples
    25
    """
    return read_setting(Setting, SETTINGS, name)
