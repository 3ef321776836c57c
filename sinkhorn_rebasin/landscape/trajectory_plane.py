"""The plane that a training run lies in best, by PCA of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sinkhorn_rebasin._typing import NetworkLike, State
from sinkhorn_rebasin.connectivity.path_ends import state_like
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.landscape.plane import SMALLEST, Plane, minus, others_of, weights_of
from sinkhorn_rebasin.networks.architecture import check_same, check_state, real_view, tensors_of


@dataclass(frozen=True)
class TrajectoryPlane(Plane):
    """Describe the plane nearest to a trajectory.

    Attributes:
        explained: the share of the squared distances from the last network along each direction.
    """

    explained: tuple[float, float] = (0.0, 0.0)


def trajectory_plane(
    network: nn.Module, checkpoints: Sequence[NetworkLike] | Mapping[str, NetworkLike]
) -> TrajectoryPlane:
    r"""Return the plane nearest to a training run.

    It goes through the last checkpoint. Its directions are the principal ones of the differences from there,

    .. math:: D = (\theta_0 - \theta_T, \dots, \theta_{T-1} - \theta_T) \approx \sum_{k=1}^2 s_k\, c_k u_k^\top,

    so that no other plane through it is nearer to all others, by the sum of squared distances. In both directions the
    first checkpoint has a coordinate that is not negative.

    Args:
        network: lends its forward; never changed.
        checkpoints: networks or weights of this architecture, from the first to the last; by name, or numbered.

    Raises:
        ArchitectureError: fewer than three checkpoints, others of another architecture, or all on one line.

    Example:
        >>> runs = [nn.Linear(3, 2) for _ in range(5)]
        >>> plane = trajectory_plane(runs[-1], runs)
        >>> plane.marks["4"], 0.5 < sum(plane.explained) <= 1
        ((0.0, 0.0), True)

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets" (2018).
    """
    named = (
        dict(checkpoints)
        if isinstance(checkpoints, Mapping)
        else {str(number): each for number, each in enumerate(checkpoints)}
    )
    if len(named) < 3:
        raise ArchitectureError(
            f"Expected at least three checkpoints, which span a plane, but got {len(named)}."
        )
    states = {name: _checked(network, each, name) for name, each in named.items()}
    weights = [weights_of(network, state) for state in states.values()]
    differences = [minus(each, weights[-1]) for each in weights[:-1]]
    flat = torch.stack(
        [torch.cat([real_view(part).flatten() for part in each.values()]) for each in differences]
    )
    values, vectors = torch.linalg.eigh(flat @ flat.T)
    total = float(values.clamp(min=0).sum())
    if not float(values[-2]) > SMALLEST**2 * total:
        raise ArchitectureError(
            "Expected checkpoints that are not on one line: look at them with evaluate_path, or take more of them."
        )
    directions, coordinates = [], []
    for value, vector in ((values[-1], vectors[:, -1]), (values[-2], vectors[:, -2])):
        vector = vector if float(vector[0]) >= 0 else -vector
        scores = vector * value.sqrt()
        directions.append(_direction(differences, vector / value.sqrt()))
        coordinates.append([*scores.tolist(), 0.0])
    marks = {name: (x, y) for name, x, y in zip(named, *coordinates, strict=True)}
    others = {name: others_of(network, state) for name, state in states.items()}
    explained = float(values[-1]) / total, float(values[-2]) / total
    first, second = directions
    return TrajectoryPlane(network, weights[-1], (first, second), marks, others, explained)


def _direction(differences: Sequence[State], shares: torch.Tensor) -> State:
    """Return a mean of differences of norm one."""
    return {
        name: torch.stack(
            [float(share) * each[name] for share, each in zip(shares, differences, strict=True)]
        ).sum(0)
        for name in differences[0]
    }


def _checked(network: nn.Module, checkpoint: NetworkLike, name: str) -> State:
    state = state_like(network, checkpoint, f"checkpoint {name}")
    check_state(network, state, f"checkpoint {name}")
    check_same(tensors_of(network), state)
    return dict(state)
