"""The gauge in which only orthogonal maps of a linear symmetry are left, and the maps that lead there."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.permutations.balancing import balancing_maps, turned
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec

MOST_SWEEPS = 100
STILL = 1e-13


def balanced(
    state: StateLike, continuous: ContinuousSpec, *, most_sweeps: int = MOST_SWEEPS
) -> tuple[State, dict[str, Tensor]]:
    r"""Balance a network and keep the maps.

    .. math:: M A M^\top = M^{-\top} B M^{-1}

    with A and B the Gram matrices of the slots with exponent 1 and -1. Among all networks that the group leads to,
    the balanced one has the least norm. Two of least norm differ by an orthogonal map, which a polar factor finds.

    Args:
        state: tensors of one network, in double precision.
        continuous: its symmetries. Orthogonal groups are left alone, and so are blocks whose Gram matrix has no
            inverse.
        most_sweeps: over all groups, since balancing one moves those it meets.

    Returns:
        The balanced state, and the map M of every group with a symmetry.

    Source: Kempf and Ness, "The length of vectors in representation spaces" (1979).
    """
    moved = dict(state)
    maps = {each.group.name: _identity(each.group.shape) for each in continuous.symmetries}
    mixing = [each for each in continuous.symmetries if each.stretches]
    for _ in range(most_sweeps):
        farthest = 0.0
        for symmetry in mixing:
            name = symmetry.group.name
            step = balancing_maps(moved, symmetry)[0].to(maps[name])
            moved = turned(moved, symmetry, step)
            maps[name] = step @ maps[name]
            farthest = max(farthest, float((step - _identity(symmetry.group.shape)).abs().max()))
        if farthest <= STILL:
            break
    return moved, maps


def _identity(shape: tuple[int, ...]) -> Tensor:
    eye = torch.eye(shape[-1], dtype=torch.float64, device="cpu")
    return eye.expand(*shape, -1).clone()
