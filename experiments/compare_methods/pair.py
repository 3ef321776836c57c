"""What methods are given and what they give back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from experiments.compare_methods.setting import Setting
from experiments.data import ImageData
from experiments.models import Architecture
from sinkhorn_rebasin import Alignment, PermutationSpec, discover_symmetry
from sinkhorn_rebasin._typing import State


@dataclass(frozen=True)
class Pair:
    """Two trained networks of one architecture, the data they learned from, and images neither of them has seen.

    `published_python` runs the published implementation; None where its environment is not known.
    """

    architecture: Architecture
    reference: nn.Module
    target: nn.Module
    data: ImageData
    seed: int
    unseen: tuple[Tensor, Tensor] | None = None
    published_python: Path | None = None

    @cached_property
    def spec(self) -> PermutationSpec:
        """The symmetries, discovered on two training images."""
        return discover_symmetry(self.reference, self.data.train_images[:2])

    def generator(self) -> torch.Generator:
        """A fresh generator that starts at the pair's seed."""
        return torch.Generator().manual_seed(self.seed)

    def batches(self, images: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        """The first training images and their labels, as batches."""
        inputs, labels = self.data.train_images[:images], self.data.train_labels[:images]
        return list(zip(inputs.split(batch_size), labels.split(batch_size), strict=True))

    def timed(self, match: Callable[[], Alignment]) -> Outcome:
        """Match, move the target, and measure the seconds of both."""
        _ = self.spec  # discovered once for all methods, and not counted
        started = time.perf_counter()
        alignment = match()
        rebased = alignment.apply(self.target)
        return Outcome(rebased, time.perf_counter() - started, alignment.permutations)


@dataclass(frozen=True)
class Outcome:
    """Where a method puts the target, and what it took.

    Attributes:
        rebased: the target's tensors in their new place.
        seconds: without the discovery of the symmetries, which all methods share.
        permutations: per group, the index vectors; None where a method does not tell.
        notes: anything else worth a place in the receipt.
        reference: the reference's tensors where they were brought into another form; None where they stay.
        network: what both states are of, where that is larger than the pair's networks; None where it is not.
        spec: its symmetries.
    """

    rebased: State
    seconds: float
    permutations: Mapping[str, Tensor] | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    reference: State | None = None
    network: nn.Module | None = None
    spec: PermutationSpec | None = None


Align: TypeAlias = Callable[[Pair, Setting], Outcome]
