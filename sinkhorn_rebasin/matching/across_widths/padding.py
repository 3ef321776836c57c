"""Tensors of a small network among the zeros of a larger one's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.permutations import PermutationSpec, Slot
from sinkhorn_rebasin.permutations.completeness import check_spec

SlotPairs = Mapping[tuple[int, ...], Sequence[tuple[Slot, Slot]]]


def padded_state(
    state: StateLike,
    spec: PermutationSpec,
    larger: PermutationSpec,
    fill: Mapping[str, float],
) -> State:
    """The tensors of a small network in the shapes of a larger one, each unit where the larger has its like.

    Args:
        state: of the small network.
        spec, larger: the symmetries of both.
        fill: what the other positions of a tensor hold; zero where it is not named.

    Raises:
        ArchitectureError: when the networks differ in more than numbers of units; the tensor is named.
    """
    pairs = paired_slots(spec, larger)
    again = {name for names in larger.tied for name in names[1:]}
    padded = {
        name: _padded(name, state[name], pairs.get(name, {}), shape, fill.get(name, 0.0))
        for name, shape in larger.shapes.items()
        if name not in again
    }
    first = {name: names[0] for names in larger.tied for name in names}
    return {name: padded[first.get(name, name)] for name in larger.shapes}


def paired_slots(
    spec: PermutationSpec, larger: PermutationSpec
) -> dict[str, dict[tuple[int, ...], list[tuple[Slot, Slot]]]]:
    """Per tensor and axes, the slots of a small network beside those of a larger one, in order.

    Raises:
        ArchitectureError: when groups, tensors, ties or slots differ in more than sizes, or the larger is smaller.
    """
    check_like(spec, larger)
    ours, theirs = _by_place(spec), _by_place(larger)
    pairs: dict[str, dict[tuple[int, ...], list[tuple[Slot, Slot]]]] = defaultdict(lambda: defaultdict(list))
    for (group_name, tensor, axes), slots in ours.items():
        others = theirs.get((group_name, tensor, axes), [])
        if len(others) != len(slots):
            raise ArchitectureError(
                f"Expected group {group_name!r} on axes {axes} of {tensor!r} {len(slots)} times in both networks but "
                f"got {len(others)} times in the larger."
            )
        pairs[tensor][axes] += zip(slots, others, strict=True)
    return pairs


def check_like(spec: PermutationSpec, larger: PermutationSpec) -> None:
    """Raise ArchitectureError, naming what differs, unless a spec has the same groups as a larger one.

    >>> from sinkhorn_rebasin.permutations import Group
    >>> check_like(PermutationSpec((Group("a", 2),), (), {}), PermutationSpec((Group("a", 3),), (), {}))
    """
    for each in (spec, larger):
        check_spec(each)
    sides: list[tuple[str, set[object], set[object]]] = [
        ("groups", set(spec.names), set(larger.names)),
        ("tensors", set(spec.shapes), set(larger.shapes)),
        ("ties", set(spec.tied), set(larger.tied)),
    ]
    for what, ours, theirs in sides:
        if ours != theirs:
            raise ArchitectureError(
                f"Expected two networks of one architecture with the same {what} but only one of them has "
                f"{sorted(map(str, ours ^ theirs))}."
            )
    for group in spec.groups:
        other = larger[group.name]
        if other.size < group.size or other.blocks < group.blocks:
            raise ArchitectureError(
                f"Expected at least {group.blocks} x {group.size} units of group {group.name!r} in the larger "
                f"network but got {other.blocks} x {other.size}."
            )


def _padded(name: str, tensor: Tensor, pairs: SlotPairs, shape: Sequence[int], fill: float) -> Tensor:
    for axes, beside in pairs.items():
        tensor = _along(name, tensor, axes, beside, shape, fill)
    if tuple(tensor.shape) != tuple(shape):
        raise ArchitectureError(
            f"Expected {name!r} to differ between the networks in its units alone but got {tuple(tensor.shape)} "
            f"where the larger has {tuple(shape)}."
        )
    return tensor


def _along(
    name: str,
    tensor: Tensor,
    axes: tuple[int, ...],
    beside: Sequence[tuple[Slot, Slot]],
    shape: Sequence[int],
    fill: float,
) -> Tensor:
    """The tensor with these axes, read as one, as long as in the larger network."""
    inner = tuple(range(len(axes)))
    front = tensor.movedim(axes, inner)
    lengths = [shape[axis] for axis in axes]
    flat = front.reshape(math.prod(front.shape[: len(axes)]), *front.shape[len(axes) :])
    to = torch.full((len(flat),), -1, device="cpu")
    taken = torch.zeros(math.prod(lengths), dtype=torch.bool, device="cpu")
    covered = torch.zeros(len(flat), dtype=torch.bool, device="cpu")
    for slot, other in beside:
        small, large = (torch.from_numpy(each.layout.table()) for each in (slot, other))
        covered[small.reshape(-1)], taken[large.reshape(-1)] = True, True
        if small.shape[2] == large.shape[2]:
            # A unit that owns another number of positions, a head of another size, is told by its own units.
            to[small.reshape(-1)] = large[: small.shape[0], : small.shape[1]].reshape(-1)
    rest, free = (~covered).nonzero().flatten(), (~taken).nonzero().flatten()
    if len(rest) == len(free):
        to[rest] = free
    if bool((to < 0).any()) or len(to.unique()) < len(to):
        raise ArchitectureError(
            f"Expected axes {axes} of {name!r} to differ between the networks in units alone but got lengths "
            f"{len(flat)} and {len(taken)}, of which {len(rest)} and {len(free)} belong to no unit."
        )
    wide = torch.full((len(taken), *flat.shape[1:]), fill, dtype=tensor.dtype, device=tensor.device)
    wide = wide.index_copy(0, to.to(tensor.device), flat)
    return wide.reshape(*lengths, *front.shape[len(axes) :]).movedim(inner, axes)


def _by_place(spec: PermutationSpec) -> dict[tuple[str, str, tuple[int, ...]], list[Slot]]:
    places: dict[tuple[str, str, tuple[int, ...]], list[Slot]] = defaultdict(list)
    for slot in spec.slots:
        places[slot.group, slot.tensor, slot.axes].append(slot)
    return places
