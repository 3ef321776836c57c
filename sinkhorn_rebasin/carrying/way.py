"""The protocol of all ways to carry an update, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, State
from sinkhorn_rebasin.carrying.update import Update
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.permutations import PermutationSpec


@dataclass(frozen=True)
class CarryProblem:
    """Hold what a way carries, and between which networks.

    Attributes:
        tuned, base, new_base: the networks as they were passed in; no way changes them.
        update: tuned minus base.
        spec, new_spec: the symmetries of the base and of the new base; one and the same at equal widths.
        heads: parameters that stay as the new base has them, since their labels are others.
        alignment: of the base with the new base, where one was given; its networks may be in canonical form.
        canonical: whether that alignment was found for networks in canonical form.
        example_inputs: what the networks take; None where that is not known.
        batches: training batches in memory; empty without data.
        held_out: batches that decide what is kept; empty without data.
        criterion: (outputs, labels) to a loss; None compares with the outputs of the tuned network.
        batch: a function from a batch to (inputs, labels).
        seed: of everything that is drawn.
    """

    tuned: nn.Module
    base: nn.Module
    new_base: nn.Module
    update: Update
    spec: PermutationSpec
    new_spec: PermutationSpec
    heads: tuple[str, ...] = ()
    alignment: Alignment | None = None
    canonical: bool = False
    example_inputs: ExampleInputs = None
    batches: list[Any] = field(default_factory=list)
    held_out: list[Any] = field(default_factory=list)
    criterion: Criterion | None = None
    batch: BatchAdapter | None = None
    seed: int = 0

    @property
    def same_widths(self) -> bool:
        """Tell whether both bases have as many units everywhere."""
        return self.spec is self.new_spec

    def seen(self, way: str) -> list[Any]:
        """Return the batches.

        Raises:
            DataError: there are none; the way that needs them is named.
        """
        if not self.batches:
            raise DataError(f"Expected data, which the way {way!r} looks at, but got none: pass data=.")
        return self.batches


@dataclass(frozen=True)
class Carried:
    """Hold what a way found.

    Attributes:
        state: the update in the new base's coordinates, of all of its parameters.
        frame: the new base in the form that the update is for, where that is another form of the same function; empty
            where the new base stays as it is.
        notes: what to tell, a sentence each.
        fitted: whether scale one is what was fitted, so that it is right without data too.
    """

    state: State
    frame: State = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fitted: bool = False


class Way(Protocol):
    """Carry an update into another network's coordinates.

    A way is a frozen dataclass of its options. It changes nothing that it is given.
    """

    @property
    def name(self) -> str:
        """Name the way in results and files."""

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base, at scale one."""


def settings_of(way: Way) -> Mapping[str, Any]:
    """Return a way's options as JSON takes them.

    >>> from dataclasses import make_dataclass
    >>> settings_of(make_dataclass("Some", [("steps", int)])(3))
    {'steps': 3}
    """
    plain = (bool, int, float, str, type(None))
    return {name: value for name, value in vars(way).items() if isinstance(value, plain)}
