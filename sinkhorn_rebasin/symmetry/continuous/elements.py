"""Random elements of the groups of a continuous symmetry, to prove claims at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry

MOST_MIXED = 256
"""Units that one element mixes; permutations carry the claim to all others."""


def random_element(
    symmetry: ContinuousSymmetry, generator: torch.Generator, log_scale: float = 0.0
) -> Tensor:
    """A matrix far from the identity for every block of a symmetry, in double precision.

    Orthogonal ones are drawn by Haar's measure, linear ones have singular values from 0.6 to 1.6. Where a group has
    common scales, all of the matrix is multiplied by the exponential of ``log_scale``.

    Shapes:
        (size, size), or (blocks, size, size) when the group is nested.
    """
    group = symmetry.group
    draws = [_of_block(symmetry, generator) for _ in range(group.blocks)]
    scale = 1.0 if symmetry.kind == "orthogonal" or symmetry.fixes_ones else math.exp(log_scale)
    if symmetry.kind == "rotary":
        paired = torch.eye(group.size, dtype=torch.float64)
        paired[[unit for pair in symmetry.pairs for unit in pair]] *= scale
        draws = [paired @ draw for draw in draws]
    else:
        draws = [scale * draw for draw in draws]
    return torch.stack(draws) if group.blocks > 1 else draws[0]


def _of_block(symmetry: ContinuousSymmetry, generator: torch.Generator) -> Tensor:
    size = symmetry.group.size
    if symmetry.kind == "rotary":
        return _turned_pairs(symmetry, generator)
    count = min(size, MOST_MIXED)
    if symmetry.fixes_ones:
        basis = _complement_of_ones(count)
        mixed = basis @ _element(symmetry, count - 1, generator) @ basis.mT + 1 / count
    else:
        mixed = _element(symmetry, count, generator)
    if count == size:
        return mixed
    places = torch.randperm(size, generator=generator, device=generator.device)[:count].cpu()
    matrix = torch.eye(size, dtype=torch.float64)
    matrix[places[:, None], places] = mixed
    return matrix


def _element(symmetry: ContinuousSymmetry, size: int, generator: torch.Generator) -> Tensor:
    turn = haar(size, generator)
    if symmetry.kind == "orthogonal":
        return turn
    stretch = (_normal(size, generator).clamp(-1, 1) / 2).exp()
    return (turn * stretch) @ haar(size, generator)


def haar(size: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix, uniformly drawn.

    Source: Francesco Mezzadri, "How to generate random matrices from the classical compact groups" (2007).
    """
    noise = _normal(size * size, generator).reshape(size, size)
    turn, upper = torch.linalg.qr(noise)
    return turn * upper.diagonal().sign()


def _complement_of_ones(size: int) -> Tensor:
    """Orthonormal columns that add up to zero."""
    square = torch.eye(size, dtype=torch.float64)
    square[:, 0] = 1.0
    return torch.linalg.qr(square)[0][:, 1:]


def _turned_pairs(symmetry: ContinuousSymmetry, generator: torch.Generator) -> Tensor:
    """A rotation and a scale for each pair."""
    matrix = torch.eye(symmetry.group.size, dtype=torch.float64)
    angles, sizes = 3 * _normal(len(symmetry.pairs), generator), _normal(len(symmetry.pairs), generator)
    for (one, other), angle, size in zip(symmetry.pairs, angles, (sizes / 3).exp(), strict=True):
        matrix[one, one] = matrix[other, other] = size * angle.cos()
        matrix[one, other], matrix[other, one] = -size * angle.sin(), size * angle.sin()
    return matrix


def _normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, dtype=torch.float64, device=generator.device).cpu()
