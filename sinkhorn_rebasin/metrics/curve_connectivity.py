"""How well a trained curve connects two networks, and how its loss bends."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.connectivity.barrier import check_positions
from sinkhorn_rebasin.connectivity.path_result import PathEvaluation
from sinkhorn_rebasin.errors import DataError


def curve_connectivity(path: PathEvaluation | Tensor) -> float:
    r"""Return the mode connectivity of a curve.

    .. math:: \mathrm{mc} = \tfrac12 (L(0) + L(1)) - L(\lambda^*), \qquad
        \lambda^* = \arg\max_\lambda \bigl|\tfrac12 (L(0) + L(1)) - L(\lambda)\bigr|

    Below zero there is a barrier, above zero the ends are worse than the curve between them, and near zero the two
    networks are well connected. Train a curve between the networks as they are, and one between the aligned ones,
    for the figure before and after alignment.

    Args:
        path: of :func:`evaluate_path` on a trained curve, or its losses (points,).

    Returns:
        mc, in the unit of the loss.

    Raises:
        DataError: fewer than two losses.

    Example:
        >>> curve_connectivity(torch.tensor([1.0, 4.0, 3.0]))
        -2.0

    Source: Yang, Hodgkinson, Theisen, Zou, Gonzalez, Ramchandran, Mahoney, "Taxonomizing local versus global
    structure in neural network loss landscapes" (2021).
    """
    losses = (path.losses if isinstance(path, PathEvaluation) else torch.as_tensor(path)).detach().double()
    if losses.ndim != 1 or len(losses) < 2:
        raise DataError(f"Expected at least two losses, of shape (points,), but got {tuple(losses.shape)}.")
    difference = (losses[0] + losses[-1]) / 2 - losses
    return float(difference[difference.abs().argmax()])


def path_curvature(path: PathEvaluation, length: float = 1.0) -> Tensor:
    r"""Return the loss's second derivative along a path.

    .. math:: \kappa(\lambda_k) = \frac{2}{\lambda_{k+1} - \lambda_{k-1}} \Bigl(
        \frac{L_{k+1} - L_k}{\lambda_{k+1} - \lambda_k} - \frac{L_k - L_{k-1}}{\lambda_k - \lambda_{k-1}} \Bigr)
        \Big/ \ell^2

    Args:
        path: of :func:`evaluate_path`.
        length: ℓ, that of the path where the curvature shall be that of a step of length one in weight space: the
            distance of the ends for a segment, :attr:`GeodesicPath.distance` for a geodesic.

    Returns:
        (points - 2,), at the inner positions.

    Raises:
        DataError: fewer than three positions, or a length that is not above zero.

    Example:
        >>> positions = torch.tensor([0.0, 0.25, 0.5, 1.0])
        >>> path_curvature(PathEvaluation(positions, 3 * positions**2)).tolist()
        [6.0, 6.0]

    Source: divided differences; along paths between networks: Pittorino et al., "Deep networks on toroids" (2022).
    """
    check_positions(path.positions)
    if len(path.positions) < 3 or not length > 0:
        raise DataError(
            f"Expected at least three positions and a length above 0 but got {len(path.positions)} and {length}."
        )
    steps = path.positions.diff()
    slopes = path.losses.diff() / steps
    return 2 * slopes.diff() / (steps[1:] + steps[:-1]) / length**2
