"""Random elements of continuous symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, check_continuous
from sinkhorn_rebasin.permutations.maps import keeping_ones, pair_matrices

LARGEST_STRETCH = 2.0
"""Random linear maps and rotary scales stretch by at most this, and shrink by no less than its inverse."""


def random_maps(
    continuous: ContinuousSpec,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    r"""Draw an element of every group.

    Orthogonal maps are uniform (Haar), in the complement of the ones where they are fixed. Linear maps are
    :math:`U\,\mathrm{diag}(s)\,V^\top` with s between 1/2 and 2, rotary ones a rotation and a scale of each pair.

    Args:
        continuous: the continuous symmetries.
        generator: draws them; without it torch's global random state is used.
        dtype: the type of the maps; they are drawn in float64.

    Example:
        >>> from sinkhorn_rebasin.permutations import Group
        >>> symmetry = ContinuousSymmetry(Group("stream", 4), "orthogonal", (), fixes_ones=True)
        >>> turn = random_maps(ContinuousSpec((symmetry,)))["stream"]
        >>> torch.allclose(turn @ turn.T, torch.eye(4).double()), torch.allclose(turn.sum(1), torch.ones(4).double())
        (True, True)

    Source: Mezzadri, "How to generate random matrices from the classical compact groups" (2007).
    """
    check_continuous(continuous)
    return {each.group.name: random_map(each, generator).to(dtype) for each in continuous.symmetries}


def random_map(
    symmetry: ContinuousSymmetry,
    generator: torch.Generator | None = None,
    *,
    log_scale: float = 0.0,
    most_mixed: int | None = None,
) -> Tensor:
    """Draw a matrix far from the identity for every block of one group, in float64.

    Args:
        symmetry: the group.
        generator: draws it; without it torch's global random state is used.
        log_scale: where the group has common scales, all of the map is multiplied by its exponential.
        most_mixed: units of a block that are mixed, drawn anew for each; the others stay.

    Shapes:
        (n, n), or (blocks, n, n) when the group is nested.
    """
    group = symmetry.group
    if symmetry.kind == "rotary":
        blocks = _rotary(symmetry, generator, log_scale)
    else:
        size = group.size if most_mixed is None else min(group.size, most_mixed)
        blocks = _in_places(_dense(symmetry, size, generator), group.size, generator)
        if symmetry.kind == "linear" and not symmetry.fixes_ones:
            blocks = math.exp(log_scale) * blocks
    return blocks.reshape(*group.shape, group.size)


def _dense(symmetry: ContinuousSymmetry, size: int, generator: torch.Generator | None) -> Tensor:
    blocks, inner = symmetry.group.blocks, size - int(symmetry.fixes_ones)
    drawn = _haar(blocks, inner, generator)
    if symmetry.kind == "linear":
        stretches = _stretches((blocks, 1, inner), generator)
        drawn = (drawn * stretches) @ _haar(blocks, inner, generator)
    return keeping_ones(drawn) if symmetry.fixes_ones else drawn


def _in_places(mixed: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """Let maps of some units act at random places of each block, which has more."""
    blocks, count = mixed.shape[:2]
    if count == size:
        return mixed
    places = _drawn(torch.rand, (blocks, size), generator).argsort()[:, :count]
    whole = torch.eye(size, dtype=mixed.dtype, device="cpu").repeat(blocks, 1, 1)
    whole[torch.arange(blocks)[:, None, None], places[:, :, None], places[:, None, :]] = mixed
    return whole


def _haar(blocks: int, size: int, generator: torch.Generator | None) -> Tensor:
    normal = _drawn(torch.randn, (blocks, size, size), generator)
    orthogonal, triangle = torch.linalg.qr(normal)
    return orthogonal * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]


def _rotary(symmetry: ContinuousSymmetry, generator: torch.Generator | None, log_scale: float) -> Tensor:
    shape = symmetry.group.blocks, len(symmetry.pairs)
    angles = 2 * math.pi * _drawn(torch.rand, shape, generator)
    scales = torch.ones(shape, dtype=torch.float64, device="cpu")
    if symmetry.stretches:
        scales = math.exp(log_scale) * _stretches(shape, generator)
    return pair_matrices(symmetry, scales * angles.cos(), scales * angles.sin())


def _stretches(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return LARGEST_STRETCH ** (2 * _drawn(torch.rand, shape, generator) - 1)


def _drawn(draw: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return draw(shape, generator=generator, dtype=torch.float64, device=device).cpu()
