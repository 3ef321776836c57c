"""Settings: which networks span the plane, and how finely it is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say what is drawn.

    Attributes:
        points: of each axis of the grid.
        plane_images: test images on which every point is measured.
        match_images: training images that the alignment learns from.
        recipe: of the alignment.
    """

    points: int = 25
    plane_images: int = 500
    match_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/plane/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").points
    51
    """
    return read_setting(Setting, SETTINGS, name)
