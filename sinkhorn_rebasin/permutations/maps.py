"""Elements of continuous symmetries: identity, inverse, composition, and what they are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.permutations.algebra import block_movement
from sinkhorn_rebasin.permutations.continuous import (
    ContinuousSpec,
    ContinuousSymmetry,
    Maps,
    check_continuous,
)
from sinkhorn_rebasin.permutations.spec import PermutationSpec


def identity_maps(continuous: ContinuousSpec, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return the maps that leave every unit unchanged.

    They are (n, n) or (blocks, n, n) per group.
    """
    check_continuous(continuous)
    return {
        symmetry.group.name: torch.eye(symmetry.group.size, dtype=dtype, device="cpu")
        .expand(*symmetry.group.shape, symmetry.group.size)
        .clone()
        for symmetry in continuous.symmetries
    }


def compose_maps(
    spec: PermutationSpec, continuous: ContinuousSpec, second: Maps, first: Maps, permutations: Permutations
) -> dict[str, Tensor]:
    """Combine maps: ``first``, and then ``second``.

    ``permutations`` are those that act with ``first``. Blocks that ``first`` moves, with the heads they lie in, are
    mixed by ``second`` at the place they have then.

    >>> from sinkhorn_rebasin.permutations import Group
    >>> symmetry = ContinuousSymmetry(Group("a", 2), "linear", ())
    >>> maps = {"a": torch.tensor([[2.0, 1.0], [0.0, 1.0]])}
    >>> compose_maps(PermutationSpec((), (), {}), ContinuousSpec((symmetry,)), maps, maps, {})["a"].tolist()
    [[4.0, 3.0], [0.0, 1.0]]
    """
    composed = {}
    for symmetry in continuous.symmetries:
        group = symmetry.group
        one, two = (
            maps[group.name].reshape(group.blocks, group.size, group.size) for maps in (first, second)
        )
        destination = block_movement(spec, permutations, group).argsort().to(two.device)
        composed[group.name] = (two[destination] @ one).reshape(*group.shape, group.size)
    return composed


def inverse_maps(
    spec: PermutationSpec, continuous: ContinuousSpec, maps: Maps, permutations: Permutations
) -> dict[str, Tensor]:
    """Invert maps that act with ``permutations``."""
    inverted = {}
    for symmetry in continuous.symmetries:
        group = symmetry.group
        blocks = maps[group.name].reshape(group.blocks, group.size, group.size)
        origin = block_movement(spec, permutations, group).to(blocks.device)
        inverted[group.name] = torch.linalg.inv(blocks)[origin].reshape(*group.shape, group.size)
    return inverted


def complement_of_ones(size: int) -> Tensor:
    """Return orthonormal columns that span mean-zero vectors.

    They are (size, size - 1), in float64.

    >>> (complement_of_ones(2).abs() ** 2).round(decimals=6).tolist()
    [[0.5], [0.5]]
    """
    start = torch.eye(size, dtype=torch.float64, device="cpu")
    start[:, 0] = 1
    return torch.linalg.qr(start)[0][:, 1:]


def inside_complement(matrices: Tensor) -> Tensor:
    """Restrict maps to the mean-zero vectors, (..., n, n) to (..., n - 1, n - 1)."""
    basis = complement_of_ones(matrices.shape[-1]).to(matrices)
    return basis.mT @ matrices @ basis


def keeping_ones(inner: Tensor) -> Tensor:
    """Extend maps of mean-zero vectors by X1 = 1, (..., n - 1, n - 1) to (..., n, n).

    >>> keeping_ones(torch.tensor([[-1.0]])).round(decimals=4).abs().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    size = inner.shape[-1] + 1
    basis = complement_of_ones(size).to(inner)
    return basis @ inner @ basis.mT + 1 / size


def pair_matrices(symmetry: ContinuousSymmetry, real: Tensor, imaginary: Tensor) -> Tensor:
    """Multiply each pair of units by a complex number, (..., pairs) to (..., n, n).

    Units in no pair stay.

    >>> from sinkhorn_rebasin.permutations import Group
    >>> symmetry = ContinuousSymmetry(Group("a", 3), "rotary", (), pairs=((0, 2),))
    >>> pair_matrices(symmetry, torch.tensor([0.0]), torch.tensor([2.0])).tolist()
    [[0.0, 0.0, -2.0], [0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]
    """
    first, second = torch.tensor(symmetry.pairs, device=real.device).unbind(1)
    paired = torch.zeros(symmetry.group.size, dtype=torch.bool, device=real.device)
    paired[first] = paired[second] = True
    matrices = torch.diag_embed((~paired).to(real).expand(*real.shape[:-1], -1))
    matrices[..., first, first] = matrices[..., second, second] = real
    matrices[..., first, second], matrices[..., second, first] = -imaginary, imaginary
    return matrices
