"""Curves through weight space: a network's parameters and buffers as a function of λ.

λ=0 is the start (the rebased target), λ=1 the end (the reference) and λ=½ the midpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import check_same, check_state, tensors_of
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.support import check_values


@runtime_checkable
class Curve(Protocol):
    """Anything that gives a network's state at each position and can run the network there."""

    @property
    def module(self) -> nn.Module:
        """The architecture that the states belong to."""

    def state_at(self, position: float | Tensor) -> State:
        """Return the parameters and buffers at the position."""

    def __call__(self, inputs: ExampleInputs, at: float | Tensor = 0.5) -> Any:
        """Run the network at the position."""


@runtime_checkable
class SupportsPath(Protocol):
    """Anything that can name the curve between its two networks, such as a trained re-basin."""

    def path(self) -> Curve:
        """Return the curve, from the rebased target (λ=0) to the reference (λ=1)."""


class StatePath(ABC):
    """A curve from one state to another; a kind of curve says only how two tensors are joined.

    The states are read when a position is asked for and never written to. Integer and boolean buffers,
    such as ``num_batches_tracked``, are those of the start.
    """

    def __init__(self, module: nn.Module, start: StateLike, end: StateLike) -> None:
        check_state(module, start, "start")
        check_state(module, end, "end")
        check_same(start, end)
        self._module = module
        self.start: State = dict(start)
        self.end: State = dict(end)

    @property
    def module(self) -> nn.Module:
        """The architecture; it is run in the mode it is in and never changed."""
        return self._module

    @abstractmethod
    def tensor_at(self, name: str, position: float | Tensor) -> Tensor:
        """Return the floating-point tensor of that name at the position, as a new tensor."""

    def state_at(self, position: float | Tensor) -> State:
        """Return the parameters and buffers at the position, as new tensors.

        Differentiable with respect to the states and to a position given as a 0-d tensor.

        Args:
            position: λ, a number or a 0-d tensor.

        Raises:
            ArchitectureError: the position is a tensor with more than one entry.
        """
        if isinstance(position, Tensor) and position.ndim != 0:
            raise ArchitectureError(
                f"Expected a number or a 0-d tensor as position but got shape {tuple(position.shape)}."
            )
        return {
            name: self.tensor_at(name, position) if _is_continuous(tensor) else tensor.clone()
            for name, tensor in self.start.items()
        }

    def __call__(self, inputs: ExampleInputs, at: float | Tensor = 0.5) -> Any:
        """Run the network at the position, in the mode that its module is in.

        Args:
            inputs: a tensor, a tuple of positional or a dict of keyword arguments.
            at: λ, a number or a 0-d tensor.
        """
        return run_at(self.module, self.state_at(at), inputs)

    def module_at(self, position: float | Tensor) -> nn.Module:
        """Return a new plain module, of the same class and mode, with the weights of the position."""
        module = standalone_copy(self.module)
        with torch.no_grad():
            # Not strict: a state may name a tied tensor once and leave out extra state; names are checked.
            module.load_state_dict(self.state_at(position), strict=False)
        return module

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.module).__name__}, {len(self.start)} tensors)"


class LinearPath(StatePath):
    """The segment θ(λ) = (1−λ)·θ_start + λ·θ_end.

    Args:
        module: the architecture, never changed; the network runs in the mode this module is in.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1, of the same names and shapes.

    Raises:
        ArchitectureError: names or shapes of a state differ from the module's; the first is named.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> path = LinearPath(layer, {"weight": torch.tensor([[1.0]])}, {"weight": torch.tensor([[3.0]])})
        >>> path(torch.ones(1, 1), at=0.25).item() == 1.5
        True

    Reference: Goodfellow, Vinyals, Saxe, "Qualitatively characterizing neural network optimization
    problems", 2015.
    """

    @classmethod
    def between(cls, start: nn.Module, end: nn.Module) -> LinearPath:
        """Return the segment between two networks of one architecture; the first lends its forward.

        Raises:
            ArchitectureError: parameter names or shapes differ; the first that differs is named.

        Example:
            >>> path = LinearPath.between(nn.Linear(3, 2), nn.Linear(3, 2))
            >>> torch.equal(path.state_at(1)["bias"], path.end["bias"])
            True
        """
        check_values(start)
        check_values(end)
        start_state, end_state = tensors_of(start), tensors_of(end)
        check_same(start_state, end_state)
        return cls(start, start_state, end_state)

    def tensor_at(self, name: str, position: float | Tensor) -> Tensor:
        start, end = _common_type(self.start[name], self.end[name])
        return torch.lerp(start, end, _weight(position, start))


class BezierPath(StatePath):
    """The quadratic curve θ(λ) = (1−λ)²·θ_start + 2λ(1−λ)·θ_control + λ²·θ_end.

    Args:
        module: the architecture, never changed.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1.
        control: the point that bends the curve; with the mean of the ends the curve is the segment.

    Raises:
        ArchitectureError: names or shapes of a state differ from the module's.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> states = [{"weight": torch.tensor([[value]])} for value in (0.0, 0.0, 2.0)]
        >>> BezierPath(layer, *states)(torch.ones(1, 1), at=0.5).item() == 1.0
        True

    Reference: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast
    Ensembling of DNNs", 2018.
    """

    def __init__(self, module: nn.Module, start: StateLike, end: StateLike, control: StateLike) -> None:
        super().__init__(module, start, end)
        check_state(module, control, "control")
        check_same(start, control)
        self.control: State = dict(control)

    def tensor_at(self, name: str, position: float | Tensor) -> Tensor:
        start, control = _common_type(self.start[name], self.control[name])
        control, end = _common_type(control, self.end[name])
        weight = _weight(position, control)
        first = torch.lerp(start.to(control), control, weight)
        return torch.lerp(first, torch.lerp(control, end, weight), weight)


def _is_continuous(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _common_type(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def _weight(position: float | Tensor, like: Tensor) -> float | Tensor:
    return position.to(like) if isinstance(position, Tensor) else position
