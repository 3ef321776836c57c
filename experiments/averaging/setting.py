"""Settings: which networks are averaged at which steps of their training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say how long networks train, and when they are averaged.

    Of the training, the rate and the batch size of Adam count.

    Attributes:
        pairs: of networks, each of other seeds.
        steps: of training after which averages are measured; permutations are found after the last.
        match_images: training images on which activations are matched and alignments are learned.
        recipe: of the alignment that is learned at the first step, before any training.
    """

    pairs: int = 2
    steps: tuple[int, ...] = (0, 50, 100, 200, 500)
    match_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/averaging/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").steps[0]
    0
    """
    return read_setting(Setting, SETTINGS, name)
