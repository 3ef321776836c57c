"""Hard permutations of all groups of a spec: identity, random, inverse, composition, matrices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations.completeness import check_spec
from sinkhorn_rebasin.permutations.spec import Group, PermutationSpec


def identity_permutations(spec: PermutationSpec) -> dict[str, Tensor]:
    """Return index vectors that leave every unit in place.

    There is one of :attr:`Group.shape` per group.
    """
    check_spec(spec)
    return {
        group.name: torch.arange(group.size, device="cpu").expand(group.shape).clone()
        for group in spec.groups
    }


def random_permutations(
    spec: PermutationSpec, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Draw uniformly random index vectors.

    There is one of :attr:`Group.shape` per group, drawn from ``generator``. Without a generator torch's global random
    state is used, as ``torch.randperm`` does.
    """
    check_spec(spec)
    return {group.name: random_permutation(group, generator) for group in spec.groups}


def random_permutation(group: Group, generator: torch.Generator | None = None) -> Tensor:
    """Draw uniformly random index vectors of one group.

    The result is of :attr:`Group.shape`.
    """
    device = "cpu" if generator is None else generator.device
    blocks = [torch.randperm(group.size, generator=generator, device=device) for _ in range(group.blocks)]
    return torch.stack(blocks).reshape(group.shape)


def permutation_matrix(indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn index vectors into permutation matrices.

    P is (..., n, n) with P[i, indices[i]] = 1, so that P @ w = w[indices].

    >>> permutation_matrix(torch.tensor([1, 0, 2])) @ torch.tensor([10.0, 20.0, 30.0])
    tensor([20., 10., 30.])
    """
    return torch.nn.functional.one_hot(indices, indices.shape[-1]).to(dtype)


def unit_movement(spec: PermutationSpec, permutations: Permutations, name: str) -> Tensor:
    """Tell where each of a group's units comes from.

    The group and all its ancestors act. The result is (blocks * size,). Unit ``i`` of block ``b`` has number ``b *
    size + i``.
    """
    group = spec[name]
    indices = permutations[name].reshape(group.blocks, group.size).cpu()
    origin = block_movement(spec, permutations, group)
    return (origin[:, None] * group.size + indices[origin]).reshape(-1)


def block_movement(spec: PermutationSpec, permutations: Permutations, group: Group) -> Tensor:
    """Tell where each of a group's blocks comes from.

    The group's ancestors act. The result is (blocks,). One unit of the parent holds several blocks when a group
    between the two was dropped.
    """
    if group.parent is None:
        return torch.arange(group.blocks, device="cpu")
    origin = unit_movement(spec, permutations, group.parent)
    inside = group.blocks // len(origin)
    return (origin[:, None] * inside + torch.arange(inside, device="cpu")).reshape(-1)


def compose(spec: PermutationSpec, second: Permutations, first: Permutations) -> dict[str, Tensor]:
    r"""Combine permutations: ``first``, and then ``second``.

    For a group without parent the index vectors compose as :math:`\pi_1[\pi_2]`. Inside a parent, the block
    that ``first`` takes from c is permuted by ``second`` at the place it has been moved to.

    >>> from sinkhorn_rebasin.permutations import Group, PermutationSpec
    >>> spec = PermutationSpec((Group("a", 3),), (), {})
    >>> p = {"a": torch.tensor([1, 2, 0])}
    >>> compose(spec, p, p)["a"].tolist()
    [2, 0, 1]
    """
    check_permutations(spec, first)
    check_permutations(spec, second)
    composed = {}
    for group in spec.groups:
        one = first[group.name].reshape(group.blocks, group.size)
        two = second[group.name].reshape(group.blocks, group.size)
        destination = block_movement(spec, first, group).argsort()
        composed[group.name] = one.gather(1, two[destination]).reshape(group.shape)
    return composed


def inverse(spec: PermutationSpec, permutations: Permutations) -> dict[str, Tensor]:
    """Invert permutations.

    ``compose(spec, inverse(spec, p), p)`` is the identity.
    """
    check_permutations(spec, permutations)
    inverted = {}
    for group in spec.groups:
        indices = permutations[group.name].reshape(group.blocks, group.size)
        origin = block_movement(spec, permutations, group)
        inverted[group.name] = indices[origin].argsort(-1).reshape(group.shape)
    return inverted


def check_permutations(spec: PermutationSpec, permutations: Permutations) -> None:
    """Raise :class:`SpecError` unless every group has one permutation.

    Each must be valid, hard or soft.
    """
    check_spec(spec)
    if not isinstance(permutations, Mapping):
        raise SpecError(
            f"Expected permutations, group names to indices or matrices, but got {type(permutations).__name__}."
        )
    for group in spec.groups:
        if group.name not in permutations:
            raise SpecError(
                f"Expected a permutation of every group but got none of {group.name!r} "
                f"(given: {sorted(permutations)})."
            )
        value = permutations[group.name]
        expected = group.shape if not value.is_floating_point() else (*group.shape, group.size)
        if tuple(value.shape) != expected:
            raise SpecError(
                f"Expected the permutation of group {group.name!r} with shape {group.shape} (indices) or "
                f"{(*group.shape, group.size)} (matrices) but got {tuple(value.shape)}."
            )
        if value.is_floating_point():
            continue
        ordered = value.sort(-1).values
        if value.dtype != torch.long or not bool(
            (ordered == torch.arange(group.size, device=value.device)).all()
        ):
            raise SpecError(
                f"Expected the indices of group {group.name!r} to be a permutation of 0..{group.size - 1} "
                f"in torch.long but got {value.dtype} with values {value.flatten()[:8].tolist()}..."
            )


def is_hard(permutations: Permutations) -> bool:
    """Tell whether all permutations are index vectors.

    None of them is then a matrix.

    >>> is_hard({"a": torch.tensor([1, 0])}), is_hard({"a": torch.eye(2)})
    (True, False)
    """
    return not any(permutation.is_floating_point() for permutation in permutations.values())
