"""Maps between the activations of two networks, in closed form."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sinkhorn_rebasin.errors import SpecError

MapKind: TypeAlias = Literal["ridge", "procrustes", "permutation"]


def fitted_map(source: Tensor, goal: Tensor, kind: MapKind, ridge: float = 0.1) -> Tensor:
    r"""Fit the matrix M with :math:`v \approx M u`, both without their means.

    - ``"ridge"``: :math:`M = C_{vu}\,(C_{uu} + r\,\bar c\, 1)^{-1}` with :math:`\bar c` the mean of the diagonal of
      :math:`C_{uu}`.
    - ``"procrustes"``: an orthogonal matrix times the scale that fits best; a partial one where widths differ.
    - ``"permutation"``: each unit is matched by the size of its correlation, and has the slope that fits best.

    Args:
        source: u, (samples, n).
        goal: v, (samples, m).
        kind: of the map.
        ridge: r.

    Returns:
        M, (m, n).

    Raises:
        SpecError: the kind is unknown.

    Example:
        >>> u = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
        >>> torch.allclose(fitted_map(u, u @ turn.T, "procrustes"), turn)
        True
    """
    if kind not in get_args(MapKind):
        raise SpecError(f"Expected maps to be one of {get_args(MapKind)} but got {kind!r}.")
    u, v = source - source.mean(0), goal - goal.mean(0)
    cross = v.T @ u
    if kind == "ridge":
        return ridge_solution(u.T @ u, cross.T, ridge).T
    if kind == "procrustes":
        left, values, right = torch.linalg.svd(cross, full_matrices=False)
        turn = left @ right
        return turn * (values.sum() / (u @ turn.T).square().sum().clamp_min(_TINY))
    sizes = v.norm(dim=0)[:, None] * u.norm(dim=0)[None]
    rows, columns = linear_sum_assignment((cross.abs() / sizes.clamp_min(_TINY)).cpu().numpy(), maximize=True)
    matrix = torch.zeros_like(cross)
    slopes = cross / u.square().sum(0).clamp_min(_TINY)
    matrix[rows, columns] = slopes[rows, columns]
    return matrix


def ridge_solution(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    r"""Solve :math:`(G + r\,\bar g\,1)\,X = C`, with :math:`\bar g` the mean of the diagonal of G.

    >>> ridge_solution(torch.eye(2), torch.ones(2, 1), 1.0).flatten().tolist()
    [0.5, 0.5]
    """
    lift = ridge * gram.diagonal().mean().clamp_min(_TINY)
    return torch.linalg.solve(gram + lift * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), cross)


_TINY = 1e-30
