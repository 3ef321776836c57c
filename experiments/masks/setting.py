"""Settings: which networks are pruned, how they are trained and aligned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.compare_methods.setting import read_setting
from experiments.masks.moving import Schedule
from experiments.models.family import Family
from sinkhorn_rebasin import Recipe

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class Setting(Family):
    """Say what is pruned, and when it goes back to where.

    Attributes:
        networks: how many; the mask of each is carried to the next, and that of the last to the first.
        rewind: epochs after which weights are kept, to which pruned networks go back.
        sparsity: share of the weights that a mask leaves out, over all layers together.
        rounds: of pruning and training, each of which leaves out the same share of what is left.
        match_images: training images on which activations are matched and alignments are learned.
        recipe: of the learned alignment.
        mask_steps: of the alignment that learns on masked networks.
        moves: of masks that move while networks train under them.
    """

    networks: int = 3
    rewind: int = 1
    sparsity: float = 0.9
    rounds: int = 1
    match_images: int = 2000
    recipe: Recipe = field(default_factory=Recipe)
    mask_steps: int = 200
    moves: Schedule = field(default_factory=Schedule)


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/masks/settings`, or a file of one's own.

    >>> load_setting("digits_mlp").sparsity
    0.9
    """
    return read_setting(Setting, SETTINGS, name)
