"""Maps of continuous symmetries as parameters: exact elements of their groups at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.full_precision import KeptTensors, LearnedTensors
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, Maps
from sinkhorn_rebasin.permutations.maps import (
    identity_maps,
    inside_complement,
    keeping_ones,
    pair_matrices,
)

LARGEST_EXPONENTIAL = 256
"""Rotations of more dimensions are Cayley transforms, which cost one solution of a linear system."""


class LearnedMaps(nn.Module):
    r"""Learn one map for every group with a continuous symmetry.

    .. math:: O_g = \exp(S_g - S_g^\top)\, O_0, \qquad A_g = \exp(D_g)\, A_0

    for orthogonal and for linear groups. Rotary groups have an angle and the logarithm of a scale for each pair of
    units. All parameters start at zero, where the maps are those of the start. Where the ones vector stays,
    :math:`O = U R\, U^\top + \mathbf 1 \mathbf 1^\top / n` with R learned and U the complement of the ones.

    Args:
        continuous: the symmetries.
        start: their maps at the start; the identity where there is none.

    Example:
        >>> from sinkhorn_rebasin.permutations import Group
        >>> turns = ContinuousSpec((ContinuousSymmetry(Group("stream", 3), "orthogonal", (), fixes_ones=True),))
        >>> learned = LearnedMaps(turns, {})
        >>> torch.nn.init.normal_(learned.rotations["stream"])[0].shape
        torch.Size([2])
        >>> turn = learned()["stream"]
        >>> torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-6), torch.allclose(turn.sum(1), torch.ones(3))
        (True, True)
    """

    def __init__(self, continuous: ContinuousSpec, start: Maps) -> None:
        super().__init__()
        self.symmetries = {symmetry.group.name: symmetry for symmetry in continuous.symmetries}
        identity = identity_maps(continuous, torch.float32)
        origin = {name: start.get(name, identity[name]).detach().clone() for name in self.symmetries}
        turning = {n: origin[n] for n, symmetry in self.symmetries.items() if symmetry.kind == "orthogonal"}
        mixing = {n: origin[n] for n in self.symmetries if n not in turning}
        self.rotations = LearnedTensors(
            {n: m.new_zeros(_tangent_shape(m, self.symmetries[n])) for n, m in turning.items()}
        )
        self.mixtures = LearnedTensors(
            {n: m.new_zeros(_tangent_shape(m, self.symmetries[n])) for n, m in mixing.items()}
        )
        self.origins = KeptTensors({n: _inside(m, self.symmetries[n]) for n, m in origin.items()})

    def forward(self) -> dict[str, Tensor]:
        """Return the maps, (n, n) or (blocks, n, n) per group."""
        learned: Mapping[str, Tensor] = {**dict(self.rotations.items()), **dict(self.mixtures.items())}
        steps = _steps(learned, self.symmetries)
        return {
            name: _moved(getattr(self.origins, name), steps[name], symmetry)
            for name, symmetry in self.symmetries.items()
        }


def identities_like(maps: Maps) -> dict[str, Tensor]:
    """Return identities of the shapes, types and devices of maps.

    >>> identities_like({"a": torch.zeros(2, 2)})["a"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return {
        name: torch.eye(m.shape[-1], dtype=m.dtype, device=m.device).expand_as(m) for name, m in maps.items()
    }


def _tangent_shape(matrix: Tensor, symmetry: ContinuousSymmetry) -> tuple[int, ...]:
    """Return the shape of a map's parameters."""
    if symmetry.kind == "rotary":
        return (*matrix.shape[:-2], len(symmetry.pairs), 1 + int(symmetry.stretches))
    size = matrix.shape[-1] - int(symmetry.fixes_ones)
    return (*matrix.shape[:-2], size, size)


def _inside(matrix: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """Return what moves: the nearest rotation, or the map, in the complement of the ones where they stay."""
    wide = inside_complement(matrix.double()) if symmetry.fixes_ones else matrix.double()
    if symmetry.kind == "orthogonal":
        left, _, right = torch.linalg.svd(wide)
        wide = left @ right
    return wide.to(matrix.dtype)


def _moved(origin: Tensor, step: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """Move a map by an element of its group."""
    moved = step @ origin
    return keeping_ones(moved) if symmetry.fixes_ones and symmetry.kind != "rotary" else moved


def _steps(tangents: Mapping[str, Tensor], symmetries: Mapping[str, ContinuousSymmetry]) -> dict[str, Tensor]:
    """Turn tangents into elements of their groups.

    Exponentials of one size are taken together.
    """
    steps, exponents = {}, {}
    for name, tangent in tangents.items():
        symmetry = symmetries[name]
        if symmetry.kind == "rotary":
            steps[name] = _turned_pairs(tangent, symmetry)
        elif symmetry.kind == "linear":
            exponents[name] = tangent
        elif tangent.shape[-1] <= LARGEST_EXPONENTIAL:
            exponents[name] = tangent - tangent.mT
        else:
            steps[name] = _cayley(tangent - tangent.mT)
    by_size: dict[tuple[int, torch.dtype, torch.device], list[str]] = {}
    for name, exponent in exponents.items():
        by_size.setdefault((exponent.shape[-1], exponent.dtype, exponent.device), []).append(name)
    for (size, *_), names in by_size.items():
        blocks = [exponents[name].reshape(-1, size, size) for name in names]
        parts = torch.linalg.matrix_exp(torch.cat(blocks)).split([len(block) for block in blocks])
        steps |= {name: part.view_as(exponents[name]) for name, part in zip(names, parts, strict=True)}
    return steps


def _cayley(skew: Tensor) -> Tensor:
    """Turn a skew matrix into a rotation.

    It agrees with the exponential to second order.
    """
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(identity - skew / 2, identity + skew / 2)


def _turned_pairs(tangent: Tensor, symmetry: ContinuousSymmetry) -> Tensor:
    """Return a rotation and a scale of each pair, from angles and logarithms of scales (..., pairs, 2)."""
    angles, scales = tangent[..., 0], torch.ones_like(tangent[..., 0])
    if symmetry.stretches:
        scales = tangent[..., 1].exp()
    return pair_matrices(symmetry, scales * angles.cos(), scales * angles.sin())
