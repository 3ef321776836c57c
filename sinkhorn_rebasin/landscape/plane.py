"""A plane in weight space: an origin and two orthonormal directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from sinkhorn_rebasin._typing import NetworkLike, State, StateLike
from sinkhorn_rebasin.connectivity.interpolation import is_mixable
from sinkhorn_rebasin.connectivity.path_ends import state_like
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import (
    check_same,
    check_state,
    double_precision,
    parameter_names_of,
    real_view,
    tensors_of,
    tied_names,
)

SMALLEST = 1e-6
"""Networks whose distance from the plane of the others is less than this part of their distance lie in it."""


@dataclass(frozen=True)
class Plane:
    r"""Describe a plane in weight space.

    .. math:: \theta(x, y) = \theta_0 + x\, u + y\, v, \qquad \lVert u \rVert = \lVert v \rVert = 1,\; u \perp v

    Weights lie in the plane, complex numbers as pairs of real ones. Buffers, running statistics among them, and whole
    numbers are those of the network whose mark is nearest: re-estimate statistics with ``prepare=`` of
    :func:`evaluate_plane`.

    Attributes:
        module: the architecture, never changed.
        origin: the weights :math:`\theta_0`.
        directions: u and v.
        marks: coordinates (x, y) of networks, by name.
        buffers: what is no weight, by the name of the network.

    Example:
        >>> import torch
        >>> nets = {name: nn.Linear(3, 2) for name in ("reference", "target", "aligned")}
        >>> plane = Plane.through(nets)
        >>> state = plane.state_at(*plane.marks["aligned"])
        >>> torch.allclose(state["weight"], nets["aligned"].weight, atol=1e-5)
        True

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
    DNNs" (2018).
    """

    module: nn.Module
    origin: State
    directions: tuple[State, State]
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    buffers: Mapping[str, StateLike] = field(default_factory=dict)

    @classmethod
    def through(cls, networks: Mapping[str, NetworkLike]) -> Plane:
        """Return the plane through three networks.

        The first is the origin, and the second lies on the first axis.

        Args:
            networks: three of one architecture, by name, such as reference, target and aligned target. The first is
                a module, which lends its forward; none is changed.

        Raises:
            ArchitectureError: not three networks, networks that differ, or three on one line.

        Example:
            >>> plane = Plane.through({name: nn.Linear(3, 2) for name in "abc"})
            >>> plane.marks["a"], round(plane.marks["b"][1], 6)
            ((0.0, 0.0), 0.0)
        """
        if len(networks) != 3:
            raise ArchitectureError(f"Expected three networks, which span a plane, but got {len(networks)}.")
        names = list(networks)
        module = networks[names[0]]
        if not isinstance(module, nn.Module):
            raise ArchitectureError(
                f"Expected the first network, {names[0]!r}, to be a module, which can be run, but got weights."
            )
        states = [_state(module, network, name) for name, network in networks.items()]
        weights = [weights_of(module, state) for state in states]
        differences = [minus(state, weights[0]) for state in weights[1:]]
        first = normalised(differences[0], f"{names[0]!r} and {names[1]!r} to differ")
        along = inner(differences[1], first)
        rest = minus(differences[1], {name: along * tensor for name, tensor in first.items()})
        if inner(rest, rest) <= SMALLEST**2 * inner(differences[1], differences[1]):
            raise ArchitectureError(
                f"Expected three networks that are not on one line but {names[2]!r} lies on that through "
                f"{names[0]!r} and {names[1]!r}: look at it with evaluate_path."
            )
        second = normalised(rest, "three networks that span a plane")
        marks = {
            names[0]: (0.0, 0.0),
            names[1]: (inner(differences[0], first), 0.0),
            names[2]: (along, inner(differences[1], second)),
        }
        buffers = {name: others_of(module, state) for name, state in zip(names, states, strict=True)}
        return cls(module, weights[0], (first, second), marks, buffers)

    def state_at(self, x: float, y: float) -> State:
        """Return the tensors at a point, all new.

        Args:
            x, y: coordinates, in units of weights.
        """
        first, second = self.directions
        weights = {
            name: (double_precision(tensor) + x * first[name] + y * second[name]).to(tensor.dtype)
            for name, tensor in self.origin.items()
        }
        tied = {name: weights[names[0]] for names in _tied_to(self.module, weights) for name in names[1:]}
        return {
            **{name: tensor.clone() for name, tensor in self._buffers_at(x, y).items()},
            **weights,
            **tied,
        }

    def coordinates(self, network: NetworkLike) -> tuple[float, float, float]:
        """Return x, y and distance from the plane.

        Raises:
            ArchitectureError: a network of another architecture.
        """
        state = weights_of(self.module, _state(self.module, network, "network"))
        difference = minus(state, self.origin)
        x, y = (inner(difference, direction) for direction in self.directions)
        height = inner(difference, difference) - x * x - y * y
        return x, y, max(height, 0.0) ** 0.5

    def _buffers_at(self, x: float, y: float) -> StateLike:
        def distance(name: str) -> float:
            return (self.marks[name][0] - x) ** 2 + (self.marks[name][1] - y) ** 2

        return self.buffers[min(self.buffers, key=distance)] if self.buffers else {}


def weights_of(module: nn.Module, state: StateLike) -> State:
    """Return the weights of a state, tied ones once.

    Parameters of whole numbers are none.

    >>> list(weights_of(nn.BatchNorm1d(2), nn.BatchNorm1d(2).state_dict()))
    ['weight', 'bias']
    """
    return {name: state[name].detach() for name in parameter_names_of(module) if is_mixable(state[name])}


def others_of(module: nn.Module, state: StateLike) -> State:
    """Return what of a state is no weight.

    >>> list(others_of(nn.BatchNorm1d(2), nn.BatchNorm1d(2).state_dict()))
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    weights = weights_of(module, state)
    named = {*weights, *(name for names in _tied_to(module, weights) for name in names)}
    return {name: tensor for name, tensor in state.items() if name not in named}


def minus(first: StateLike, second: StateLike) -> State:
    """Return the difference of two states in double precision.

    >>> minus({"w": nn.Linear(1, 1).weight}, {"w": nn.Linear(1, 1).weight})["w"].dtype
    torch.float64
    """
    return {name: double_precision(tensor) - double_precision(second[name]) for name, tensor in first.items()}


def inner(first: StateLike, second: StateLike) -> float:
    """Return the inner product of two states.

    Complex numbers count as pairs of real ones.

    >>> import torch
    >>> inner({"w": torch.ones(2)}, {"w": torch.ones(2)})
    2.0
    """
    pairs = ((real_view(tensor), real_view(second[name])) for name, tensor in first.items())
    return sum(float((one.double() * other.double()).sum()) for one, other in pairs)


def normalised(state: StateLike, expected: str) -> dict[str, Tensor]:
    """Return a state of norm one.

    Raises:
        ArchitectureError: it is zero.
    """
    norm = inner(state, state) ** 0.5
    if not norm > 0:
        raise ArchitectureError(f"Expected {expected} but their weights are equal.")
    return {name: double_precision(tensor) / norm for name, tensor in state.items()}


def _state(module: nn.Module, network: NetworkLike, role: str) -> State:
    state = state_like(module, network, role)
    check_state(module, state, role)
    check_same(tensors_of(module), state)
    return dict(state)


def _tied_to(module: nn.Module, weights: StateLike) -> list[list[str]]:
    """Group the names of weights, their own first."""
    return [names for names in tied_names(module) if names[0] in weights]
