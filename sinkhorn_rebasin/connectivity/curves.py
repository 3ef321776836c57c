"""Curves through weight space: a network's parameters and buffers as a function of λ.

λ=0 is the start (the rebased target), λ=1 the end (the reference) and λ=½ the midpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, Heads, NetworkLike, State
from sinkhorn_rebasin.connectivity.interpolation import (
    check_position,
    is_mixable,
    lerp,
    nearer,
    singular_vectors,
    warn_of_whole,
    whole_tensors,
)
from sinkhorn_rebasin.connectivity.path_ends import ignored_ends, state_like, warn_of_unsaved
from sinkhorn_rebasin.files.given_networks import module_of
from sinkhorn_rebasin.networks.architecture import check_heads, check_same, check_state, tensors_of
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.support import check_module
from sinkhorn_rebasin.permutations.heads import with_heads


@runtime_checkable
class Curve(Protocol):
    """Describe a network's states along a curve.

    It gives the state at each position and can run the network there.
    """

    @property
    def module(self) -> nn.Module:
        """Return the architecture that the states belong to."""

    def state_at(self, at: float | Tensor) -> State:
        """Return the parameters and buffers at the position."""

    def __call__(self, inputs: ExampleInputs, at: float | Tensor = 0.5) -> Any:
        """Run the network at the position."""


@runtime_checkable
class SupportsPath(Protocol):
    """Describe what can name the curve between networks.

    A trained re-basin names the one between its two.
    """

    def path(self) -> Curve:
        """Return the curve to the reference.

        It leads from the rebased target (λ=0) to the reference (λ=1).
        """


class StatePath(ABC):
    """Join one state to another by a curve.

    A kind of curve says only how two tensors are joined. The states are read when a position is asked for and never
    written to. Weights and running statistics of norm layers are joined, and equal tensors pass through bit for bit.
    Other buffers, of which a mean is none, are those of the nearer end; where they differ, a warning names them.
    """

    def __init__(
        self, module: nn.Module, start: NetworkLike, end: NetworkLike, statistics: Collection[str] = ()
    ) -> None:
        check_module(module)
        start, end = state_like(module, start, "start"), state_like(module, end, "end")
        check_state(module, start, "start")
        check_state(module, end, "end")
        check_same(start, end)
        self._module = module
        self.start: State = dict(start)
        self.end: State = dict(end)
        self._whole = whole_tensors(module, statistics)
        warn_of_whole(self.start, self.end, self._whole - singular_vectors(module))

    @property
    def module(self) -> nn.Module:
        """Return the architecture, never changed.

        It is run in the mode it is in.
        """
        return self._module

    @abstractmethod
    def tensor_at(self, name: str, at: float | Tensor) -> Tensor:
        """Return one tensor at a position on the curve."""

    def state_at(self, at: float | Tensor) -> State:
        """Return the parameters and buffers at the position.

        All are new tensors. Differentiable with respect to the states and to a position given as a 0-d tensor.

        Args:
            at: λ, a number or a 0-d tensor.

        Raises:
            ArchitectureError: the position is a tensor with more than one entry.
        """
        check_position(at)
        return {
            name: self.tensor_at(name, at)
            if name not in self._whole and is_mixable(tensor)
            else nearer(tensor, self.end[name], at)
            for name, tensor in self.start.items()
        }

    def __call__(self, inputs: ExampleInputs, at: float | Tensor = 0.5) -> Any:
        """Run the network at the position.

        It runs in the mode that its module is in.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            at: λ, a number or a 0-d tensor.
        """
        return run_at(self.module, self.state_at(at), inputs)

    def module_at(self, at: float | Tensor) -> nn.Module:
        """Return a new plain module at the position.

        It has the class and mode of this curve's module, and the weights of the position.
        """
        module = standalone_copy(self.module)
        with torch.no_grad():
            # Not strict: a state may name a tied tensor once and leave out extra state; names are checked.
            module.load_state_dict(self.state_at(at), strict=False)
        return module

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.module).__name__}, {len(self.start)} tensors)"


class LinearPath(StatePath):
    """Join two states by a segment.

    θ(λ) = (1−λ)·θ_start + λ·θ_end.

    Args:
        module: the architecture, never changed; the network runs in the mode this module is in.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1, of the same names and shapes.
        statistics: names of float buffers that are joined too, besides those of norm layers: averages that a layer
            of your own keeps while it trains.

    Raises:
        ArchitectureError: names or shapes of a state differ from the module's; the first is named.

    Warns:
        RebasinWarning: Buffers that are no statistics differ; all of them are named.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> path = LinearPath(layer, {"weight": torch.tensor([[1.0]])}, {"weight": torch.tensor([[3.0]])})
        >>> path(torch.ones(1, 1), at=0.25).item() == 1.5
        True

    Reference: Goodfellow, Vinyals, Saxe, "Qualitatively characterizing neural network optimization
    problems", 2015.
    """

    @classmethod
    def between(
        cls,
        start: NetworkLike,
        end: NetworkLike,
        statistics: Collection[str] = (),
        *,
        heads: Heads | None = None,
        ignore: Sequence[str] = (),
    ) -> LinearPath:
        """Return the segment between two networks.

        They have one architecture. The first lends its forward. One of them may be weights alone.

        Args:
            start: the target's place, λ = 0.
            end: the reference, λ = 1.
            statistics: as for :class:`LinearPath`.
            heads: whose ignored layers all networks of the path have: ``"reference"`` for those of the end,
                ``"target"`` for those of the start.
            ignore: these layers, by name or pattern; without it the tensors that differ in shape.

        Raises:
            ArchitectureError: parameter names or shapes differ; the first that differs is named.
            SpecError: ``ignore`` names no layer.

        Example:
            >>> path = LinearPath.between(nn.Linear(3, 2), nn.Linear(3, 2))
            >>> torch.equal(path.state_at(1)["bias"], path.end["bias"])
            True
        """
        check_heads(heads)
        start, end = (module_of(*each) for each in ((start, "start", end), (end, "end", start)))
        states = tensors_of(start), tensors_of(end)
        if heads is None and not ignore:
            hint = " Of heads that differ, say whose all networks have: heads='reference' or heads='target'."
            check_same(*states, hint=hint)
        apart = ignored_ends(states, ignore, heads)
        check_same(*states, apart=apart.ignored)
        warn_of_unsaved(start, end)
        whose = start if heads != "reference" or not apart.ignored else end
        kept = tensors_of(whose)
        first, last = (with_heads(state, kept, apart) for state in states)
        return cls(whose, first, last, statistics)

    def tensor_at(self, name: str, at: float | Tensor) -> Tensor:
        """Return one tensor at a position."""
        return lerp(self.start[name], self.end[name], at)
