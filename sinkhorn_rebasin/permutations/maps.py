"""Elements of continuous symmetries: identity, random, inverse, composition."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.permutations.algebra import block_movement
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, Maps
from sinkhorn_rebasin.permutations.spec import PermutationSpec

LARGEST_STRETCH = 2.0
"""Random linear maps and rotary scales stretch by at most this, and shrink by no less than its inverse."""


def identity_maps(continuous: ContinuousSpec, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return the maps that leave every unit unchanged.

    They are (n, n) or (blocks, n, n) per group.
    """
    return {
        symmetry.group.name: torch.eye(symmetry.group.size, dtype=dtype, device="cpu")
        .expand(*symmetry.group.shape, symmetry.group.size)
        .clone()
        for symmetry in continuous.symmetries
    }


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
    drawn = {}
    for symmetry in continuous.symmetries:
        group = symmetry.group
        blocks = _rotary(symmetry, generator) if symmetry.kind == "rotary" else _dense(symmetry, generator)
        drawn[group.name] = blocks.reshape(*group.shape, group.size).to(dtype)
    return drawn


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


def _dense(symmetry: ContinuousSymmetry, generator: torch.Generator | None) -> Tensor:
    blocks, size = symmetry.group.blocks, symmetry.group.size
    if symmetry.kind == "linear":
        stretches = _stretches((blocks, 1, size), generator)
        return (_haar(blocks, size, generator) * stretches) @ _haar(blocks, size, generator)
    if not symmetry.fixes_ones:
        return _haar(blocks, size, generator)
    basis = complement_of_ones(size)
    return basis @ _haar(blocks, size - 1, generator) @ basis.mT + 1 / size


def complement_of_ones(size: int) -> Tensor:
    """Return orthonormal columns that span mean-zero vectors.

    They are (size, size - 1), in float64.

    >>> (complement_of_ones(2).abs() ** 2).round(decimals=6).tolist()
    [[0.5], [0.5]]
    """
    start = torch.eye(size, dtype=torch.float64, device="cpu")
    start[:, 0] = 1
    return torch.linalg.qr(start)[0][:, 1:]


def _haar(blocks: int, size: int, generator: torch.Generator | None) -> Tensor:
    normal = _drawn(torch.randn, (blocks, size, size), generator)
    orthogonal, triangle = torch.linalg.qr(normal)
    return orthogonal * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]


def _rotary(symmetry: ContinuousSymmetry, generator: torch.Generator | None) -> Tensor:
    blocks, size = symmetry.group.blocks, symmetry.group.size
    first, second = torch.tensor(symmetry.pairs, device="cpu").unbind(1)
    angles = 2 * math.pi * _drawn(torch.rand, (blocks, len(first)), generator)
    scales = _stretches((blocks, len(first)), generator)
    matrices = torch.zeros(blocks, size, size, dtype=torch.float64, device="cpu")
    cosines, sines = scales * angles.cos(), scales * angles.sin()
    matrices[:, first, first], matrices[:, second, second] = cosines, cosines
    matrices[:, first, second], matrices[:, second, first] = -sines, sines
    return matrices


def _stretches(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return LARGEST_STRETCH ** (2 * _drawn(torch.rand, shape, generator) - 1)


def _drawn(draw: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return draw(shape, generator=generator, dtype=torch.float64, device=device).cpu()
