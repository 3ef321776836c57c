"""Settings: the grid of widths and batch sizes, and how connectivity is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say which cells are measured.

    Of the training, everything but the batch size is that of every cell.

    Attributes:
        widths: of the hidden layers, or of the channels of convolutions.
        batch_sizes: with which networks are trained.
        layers: how many layers have that width.
        curve_steps, curve_rate: of SGD on the bend of the curve whose connectivity is measured.
        points: of the curve, odd.
        path_images: training images on which it is measured.
        match_images: training images that alignments learn from.
        recipe: of the alignments.
        poor: cells whose connectivity is below minus this are poorly connected.
    """

    widths: tuple[int, ...] = (8, 16, 32, 64)
    batch_sizes: tuple[int, ...] = (10, 50, 250)
    layers: int = 2
    curve_steps: int = 50
    curve_rate: float = 0.05
    points: int = 11
    path_images: int = 1000
    match_images: int = 1000
    recipe: Recipe = field(default_factory=Recipe)
    poor: float = 0.05


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/taxonomy/settings`, or a file of one's own.

    >>> len(load_setting("digits_mlp").widths)
    4
    """
    return read_setting(Setting, SETTINGS, name)
