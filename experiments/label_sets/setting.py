"""Settings: which networks of different classes are merged, and what the methods may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.compare_methods.setting import Training, read_setting
from experiments.models.endpoints import EndpointConfig

SETTINGS = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Learning:
    """How the alignment of ours is learned: steps of Adam, batches, and the rate."""

    steps: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Setting:
    """One line of work.

    Attributes:
        held_out: training images, the last of them, that no network has seen; options of every method are chosen by
            the joint accuracy on them.
        pairs: how many pairs of networks, each of other seeds and another split of the classes.
        images: training images, without labels, that the methods look at.
        held_out_images: how many of those held out are used; None: all.
        test_images: None: all.
        positions: places of each image that least squares look at; None: all.
        bfloat16: measure accuracies and learn alignments in mixed precision.
    """

    title: str
    data: Literal["digits", "mnist", "cifar10"]
    model: str
    training: Training
    arguments: Mapping[str, Any] = field(default_factory=dict)
    held_out: int = 0
    pairs: int = 2
    images: int = 2000
    held_out_images: int | None = None
    test_images: int | None = None
    positions: int | None = None
    bfloat16: bool = False
    learning: Learning = field(default_factory=Learning)

    def endpoint(self) -> EndpointConfig:
        """How each network is trained; the seed is a pair's own."""
        training = {name: getattr(self.training, name) for name in Training.__dataclass_fields__}
        return EndpointConfig(model=self.model, seed=0, arguments=dict(self.arguments), **training)


def load_setting(name: str) -> Setting:
    """Read a setting of `experiments/label_sets/settings`, or a file of one's own.

    >>> load_setting("cifar10_resnet8").pairs >= 1
    True
    """
    return read_setting(Setting, SETTINGS, name)
