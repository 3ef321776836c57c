"""One representative of all linear changes of units: what comes in weighs as much as what goes out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ConvergenceWarning, RebasinWarning
from sinkhorn_rebasin.permutations.action import apply_matrices
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.maps import inside_complement, keeping_ones
from sinkhorn_rebasin.permutations.slots import Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.permutations.units_of_slots import unit_rows, with_ties

LARGEST_CONDITION = 1e10
"""Gram matrices with a larger quotient of eigenvalues are left as they are."""


def balance_state(
    state: StateLike, spec: PermutationSpec, continuous: ContinuousSpec, *, max_sweeps: int = 100
) -> State:
    r"""Balance the two sides of linear groups.

    Their units are mixed so that both sides have equal Gram matrices.

    .. math:: X A X^\top = X^{-\top} B X^{-1}, \qquad A = \sum_{e_k = 1} W_k W_k^\top, \quad
        B = \sum_{e_k = -1} W_k W_k^\top

    which :func:`balancing_map` solves. It is the element with the least sum of squares, and unique up to
    orthogonal maps. Rotary groups get one scale a pair. Groups are swept until nothing moves.

    Args:
        state: tensor name to tensor.
        spec, continuous: the symmetries of the network.
        max_sweeps: sweeps before a :class:`ConvergenceWarning`: balancing one group moves others it meets.

    Warns:
        RebasinWarning: A Gram matrix has no inverse (a layer of zeros); its block is left as it is.
    """
    moved, singular = dict(state), set()
    turning = [symmetry for symmetry in continuous.symmetries if symmetry.stretches]
    for _ in range(max_sweeps):
        farthest = 0.0
        for symmetry in turning:
            matrices, whole = balancing_maps(moved, symmetry)
            if not whole:
                singular.add(symmetry.group.name)
            eye = torch.eye(symmetry.group.size, dtype=matrices.dtype, device=matrices.device)
            change = float((matrices - eye).abs().max())
            farthest = max(farthest, change)
            if change > 1e-12:
                moved = turned(moved, symmetry, matrices)
        if farthest <= 1e-9:
            break
    else:
        if turning:
            warnings.warn(
                f"Expected balanced groups after {max_sweeps} sweeps but the largest change is still {farthest:.1e}; "
                f"the function is unchanged all the same.",
                ConvergenceWarning,
                stacklevel=2,
            )
    if singular:
        warnings.warn(
            f"Expected Gram matrices with an inverse but those of {sorted(singular)} have none everywhere: these "
            f"blocks are left as they are.",
            RebasinWarning,
            stacklevel=2,
        )
    return with_ties(moved, spec)


def balancing_map(incoming: Tensor, outgoing: Tensor) -> Tensor:
    r"""Find the map that balances two Gram matrices.

    X is symmetric and positive and solves X A Xᵀ = X⁻ᵀ B X⁻¹. A and B are positive definite.

    .. math:: X^2 = A^{-1/2} \big(A^{1/2} B A^{1/2}\big)^{1/2} A^{-1/2}

    the geometric mean of A⁻¹ and B.

    Shapes:
        all are (..., n, n).

    >>> balancing_map(torch.eye(1), 16 * torch.eye(1))
    tensor([[2.]])

    Source: Bhatia, "Positive definite matrices" (2007), section 4.1.
    """
    root, back = _power(incoming, 0.5), _power(incoming, -0.5)
    return _power(back @ _power(root @ outgoing @ root, 0.5) @ back, 0.5)


def turned(state: StateLike, symmetry: ContinuousSymmetry, matrices: Tensor) -> State:
    """Mix the units of one group.

    Slots with -1 are mixed by the inverse transpose.
    """
    inverses = torch.linalg.inv(matrices).mT
    moved = dict(state)
    for slot, exponent in symmetry.exponents:
        moved[slot.tensor] = apply_matrices(moved[slot.tensor], slot, matrices if exponent > 0 else inverses)
    return moved


def balancing_maps(state: State, symmetry: ContinuousSymmetry) -> tuple[Tensor, bool]:
    """Balance each block of one group.

    Returns:
        The maps (n, n) or (blocks, n, n), and whether all blocks could be balanced.
    """
    incoming = _gram(state, (slot for slot, exponent in symmetry.exponents if exponent > 0))
    outgoing = _gram(state, (slot for slot, exponent in symmetry.exponents if exponent < 0))
    if symmetry.fixes_ones:
        incoming, outgoing = inside_complement(incoming), inside_complement(outgoing)
    if symmetry.kind == "rotary":
        incoming, outgoing = (_pair_sums(gram, symmetry.pairs) for gram in (incoming, outgoing))
    eye = torch.eye(incoming.shape[-1], dtype=incoming.dtype, device=incoming.device)
    regular = (_is_regular(incoming) & _is_regular(outgoing))[:, None, None]
    safe = [torch.where(regular, gram, eye) for gram in (incoming, outgoing)]
    maps = balancing_map(*safe)
    maps = keeping_ones(maps) if symmetry.fixes_ones else maps
    return maps.reshape(*symmetry.group.shape, symmetry.group.size), bool(regular.all())


def _gram(state: State, slots: Iterable[Slot]) -> Tensor:
    rows = [unit_rows(state[slot.tensor].double(), slot) for slot in slots]
    return torch.stack([entries @ entries.mT for entries in rows]).sum(0)


def _pair_sums(gram: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Sum each pair of units along the diagonal.

    Both units of a pair get what they weigh together, and units in no pair one.
    """
    weights = gram.diagonal(dim1=-2, dim2=-1)
    summed = torch.ones_like(weights)
    for first, second in pairs:
        summed[..., first] = summed[..., second] = weights[..., first] + weights[..., second]
    return torch.diag_embed(summed)


def _is_regular(gram: Tensor) -> Tensor:
    values = torch.linalg.eigvalsh(gram)
    return values[..., 0] * LARGEST_CONDITION > values[..., -1]


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    smallest = torch.finfo(values.dtype).tiny
    return (vectors * values.clamp_min(smallest).pow(exponent)[..., None, :]) @ vectors.mT
