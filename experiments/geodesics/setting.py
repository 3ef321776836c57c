"""Settings: which networks are joined by segments and geodesics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say what is measured.

    Attributes:
        pairs: of networks, each of other seeds.
        points: of every path, odd.
        path_images: training images on which paths are measured, beside the test images.
        match_images: training images that alignments look at.
        recipe: of the learned alignment.
    """

    pairs: int = 3
    points: int = 21
    path_images: int = 1000
    match_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/geodesics/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").points
    21
    """
    return read_setting(Setting, SETTINGS, name)
