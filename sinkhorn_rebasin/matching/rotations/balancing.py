"""The gauge in which only orthogonal maps of a linear symmetry are left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.matching.rotations.polar import complement_of_ones
from sinkhorn_rebasin.matching.weights.similarity import units_of
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import apply_matrices
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry

MOST_SWEEPS = 50
STILL = 1e-13
LEAST_EIGENVALUE = 1e-12
"""Of the largest: directions that nothing is written into, or nothing reads, are left as they are."""


def balanced(
    state: StateLike, continuous: ContinuousSpec, parameters: Sequence[str]
) -> tuple[State, dict[str, Tensor]]:
    r"""Bring writers and readers of every linear group to one Gram matrix.

    .. math:: M^\top M = G_+^{-1} \# G_-, \qquad M G_+ M^\top = M^{-\top} G_- M^{-1}

    with :math:`G_\pm` the Gram matrices of the slots with exponent ±1, and # the geometric mean. Among all networks
    that the group leads to this one has the least norm. Two of least norm differ by an orthogonal map.

    Args:
        state: tensors of one network, in double precision.
        continuous: its symmetries. Orthogonal ones are left alone.
        parameters: names of the tensors that count.

    Returns:
        The balanced state, and the map M that leads to it of every group with a symmetry, (blocks, n, n).

    Source: Kempf and Ness, "The length of vectors in representation spaces" (1979).
    """
    balanced_state, maps = dict(state), {}
    for symmetry in continuous.symmetries:
        group = symmetry.group
        eye = torch.eye(group.size, dtype=torch.float64, device="cpu")
        maps[group.name] = eye.expand(group.blocks, -1, -1).clone()
    several = [symmetry for symmetry in continuous.symmetries if symmetry.kind != "orthogonal"]
    for _ in range(MOST_SWEEPS if several else 0):
        change = 0.0
        for symmetry in several:
            step = _balancing_map(balanced_state, symmetry, parameters)
            balanced_state = moved(balanced_state, symmetry, step)
            maps[symmetry.group.name] = step @ maps[symmetry.group.name]
            change = max(change, float((step - torch.eye(symmetry.group.size).to(step)).abs().max()))
        if change < STILL or len(several) == 1:
            break
    return balanced_state, maps


def moved(state: StateLike, symmetry: ContinuousSymmetry, matrices: Tensor) -> State:
    """Let the matrices of one group act, the inverse transpose where slots ask for it."""
    matrices = matrices.reshape(*symmetry.group.shape, symmetry.group.size)
    contragredient = torch.linalg.inv(matrices).mT
    tensors = dict(state)
    for slot, exponent in symmetry.exponents:
        if slot.tensor in tensors:
            chosen = matrices if exponent > 0 else contragredient
            tensors[slot.tensor] = apply_matrices(tensors[slot.tensor], slot, chosen)
    return tensors


def _balancing_map(state: State, symmetry: ContinuousSymmetry, parameters: Sequence[str]) -> Tensor:
    """Balance one group while all others are held, (blocks, n, n)."""
    counted = [(slot, sign) for slot, sign in symmetry.exponents if slot.tensor in parameters]
    writers = _gram(state, [slot for slot, sign in counted if sign > 0], symmetry)
    readers = _gram(state, [slot for slot, sign in counted if sign < 0], symmetry)
    if symmetry.kind == "rotary":
        return _pairwise(writers, readers, symmetry)
    if not symmetry.fixes_ones:
        return _geometric_root(writers, readers)
    basis = complement_of_ones(symmetry.group.size)
    inner = _geometric_root(basis.mT @ writers @ basis, basis.mT @ readers @ basis)
    return basis @ inner @ basis.mT + 1 / symmetry.group.size


def _gram(state: State, slots: Sequence[Slot], symmetry: ContinuousSymmetry) -> Tensor:
    size, blocks = symmetry.group.size, symmetry.group.blocks
    total = torch.zeros(blocks, size, size, dtype=torch.float64, device="cpu")
    for slot in slots:
        units = units_of(state[slot.tensor], slot).double()
        total += (units @ units.mT).cpu()
    return total


def _geometric_root(writers: Tensor, readers: Tensor) -> Tensor:
    """Take the positive root of the geometric mean of inverse writers and readers."""
    writers, readers = _definite(writers), _definite(readers)
    root, inverse = _power(writers, 0.5), _power(writers, -0.5)
    return _power(inverse @ _power(root @ readers @ root, 0.5) @ inverse, 0.5)


def _definite(gram: Tensor) -> Tensor:
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.where(scale > 0, gram + LEAST_EIGENVALUE * scale * eye, eye)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    least = LEAST_EIGENVALUE * values[..., -1:].clamp_min(torch.finfo(values.dtype).tiny)
    return vectors * values.clamp_min(least)[..., None, :] ** exponent @ vectors.mT


def _pairwise(writers: Tensor, readers: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """Scale every pair of units until both sides are as large."""
    first, second = torch.tensor(symmetry.pairs).unbind(1)
    sides = []
    for gram in (writers, readers):
        squares = gram.diagonal(dim1=-2, dim2=-1)
        sides.append(squares[..., first] + squares[..., second])
    least = torch.finfo(torch.float64).tiny
    usable = (sides[0] > least) & (sides[1] > least)
    scales = torch.where(usable, (sides[1] / sides[0].clamp_min(least)) ** 0.25, 1.0)
    factors = torch.ones(*writers.shape[:-1], dtype=torch.float64)
    factors[..., first], factors[..., second] = scales, scales
    return torch.diag_embed(factors)
