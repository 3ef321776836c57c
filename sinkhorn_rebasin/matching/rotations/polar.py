"""The orthogonal map that brings the units of two networks closest."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.permutations.maps import inside_complement, keeping_ones, pair_matrices


def best_rotation(similarity: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    r"""Find the orthogonal map that gains most.

    .. math:: \max_{R^\top R = 1} \langle R, S \rangle, \qquad R = U V^\top \quad\text{for}\quad S = U \Sigma V^\top

    Where the ones vector is fixed, the polar factor is taken inside its complement. A rotary map turns each pair of
    units by one angle.

    Args:
        similarity: S, inner products of reference units by target units, (..., n, n).
        symmetry: which maps are allowed.

    Returns:
        R, of the shape of the similarity.

    Example:
        >>> from sinkhorn_rebasin.permutations import Group
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> free = ContinuousSymmetry(Group("a", 2), "orthogonal", ())
        >>> torch.allclose(best_rotation(3 * turn, free), turn)
        True

    Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem" (1966).
    """
    if symmetry.kind == "rotary":
        return _best_angles(similarity, symmetry)
    if not symmetry.fixes_ones:
        return _polar(similarity)
    return keeping_ones(_polar(inside_complement(similarity)))


def rotation_gain(similarity: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """Say what the best orthogonal map gains, (...)."""
    return (best_rotation(similarity, symmetry) * similarity).sum((-2, -1))


def _polar(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def _best_angles(similarity: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """Turn each pair by its best angle."""
    first, second = torch.tensor(symmetry.pairs, device=similarity.device).unbind(1)
    cosine = similarity[..., first, first] + similarity[..., second, second]
    sine = similarity[..., second, first] - similarity[..., first, second]
    angle = torch.atan2(sine, cosine)
    return pair_matrices(symmetry, angle.cos(), angle.sin())
