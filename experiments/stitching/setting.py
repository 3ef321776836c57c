"""Settings: which networks are stitched, and how stitches are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say how a stitch is fitted.

    Attributes:
        pairs: of networks, each of other seeds.
        match_images: training images that stitches are fitted on.
        steps: of Adam for permutations, and as many again for scales and for the full matrix.
        batch_size: of these steps.
        cycles: how often permutations and scales are annealed together, each time from the best before.
        permutation_rate, scale_rate, full_rate: of Adam.
    """

    pairs: int = 2
    match_images: int = 5000
    steps: int = 200
    batch_size: int = 250
    cycles: int = 3
    permutation_rate: float = 0.1
    scale_rate: float = 0.02
    full_rate: float = 1e-3


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/stitching/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").data
    'digits'
    """
    return read_setting(Setting, SETTINGS, name)
