"""The slots of two networks that differ in nothing but their widths, and maps that carry one onto the other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.permutations import PermutationSpec, Slot


@dataclass(frozen=True)
class SlotPair:
    """Hold one slot in the reference and the target.

    It tells whether the slot's units come in there or are read.
    """

    ours: Slot
    theirs: Slot
    incoming: bool


@dataclass(frozen=True)
class UnitMaps:
    """Hold how a group's m units become n.

    There is one map for tensors that make them and one for those that read them, (n, m) each.
    """

    incoming: Tensor
    outgoing: Tensor


def pair_slots(
    reference: PermutationSpec, target: PermutationSpec, transposed: Collection[str]
) -> dict[str, list[SlotPair]]:
    """Pair the slots of both specs by tensor.

    What comes in lies on the first axis, of ``transposed`` tensors on another.

    Raises:
        ArchitectureError: when the specs differ in more than sizes, or a group's sides cannot be told apart.
    """
    _check_equal("groups", set(reference.names), set(target.names))
    ours, theirs = _by_place(reference), _by_place(target)
    _check_equal("slots (group, tensor, axes)", set(ours), set(theirs))
    pairs: dict[str, list[SlotPair]] = defaultdict(list)
    for place, slot in ours.items():
        other = theirs[place]
        if slot.layout.width != other.layout.width:
            raise ArchitectureError(
                f"Expected the units of group {slot.group!r} to own as many positions on axes {slot.axes} of tensor "
                f"{slot.tensor!r} in both networks but got {slot.layout.width} and {other.layout.width}: are their "
                f"inputs of one size?"
            )
        pairs[slot.tensor].append(SlotPair(slot, other, (slot.axes[0] == 0) != (slot.tensor in transposed)))
    _check_sides(reference, target, pairs)
    return pairs


def check_shapes(reference: StateLike, target: StateLike, pairs: Mapping[str, Sequence[SlotPair]]) -> None:
    """Raise ArchitectureError unless only paired axes differ.

    They are axes of two states. The first tensor that differs elsewhere is named.
    """
    _check_equal("tensors", set(reference), set(target))
    for name in reference:
        ours, theirs = tuple(reference[name].shape), tuple(target[name].shape)
        places = _by_axes(pairs.get(name, ()))
        moving = sorted({axis for axes in places for axis in axes})
        if _off_axes(ours, moving) != _off_axes(theirs, moving) or any(
            _left_over(ours, axes, [pair.ours for pair in found])
            != _left_over(theirs, axes, [pair.theirs for pair in found])
            for axes, found in places.items()
        ):
            raise ArchitectureError(
                f"Expected {name!r} to differ between the networks in the number of permuted units alone but got "
                f"shapes {ours} and {theirs}, permuted on the axes {moving}."
            )


def carry_tensor(
    tensor: Tensor, pairs: Sequence[SlotPair], maps: Mapping[str, UnitMaps], shape: Sequence[int]
) -> Tensor:
    """Apply the maps at these slots.

    The axes they stand on get the reference's lengths in ``shape``.

    All slots on the same axes belong into one call. Other positions are passed on in their order. Where there are
    slots the result is in double precision.
    """
    for axes, found in _by_axes(pairs).items():
        inner = range(len(axes))
        front = tensor.movedim(axes, tuple(inner))
        lengths = [shape[axis] for axis in axes]
        flat = front.reshape(math.prod(front.shape[: len(axes)]), -1)
        flat = flat.to(torch.promote_types(torch.float64, flat.dtype))
        result = flat.new_empty(math.prod(lengths), flat.shape[1])
        left = [torch.ones(len(rows), dtype=torch.bool, device=flat.device) for rows in (result, flat)]
        for pair in found:
            unit_maps = maps[pair.ours.group]
            matrix = (unit_maps.incoming if pair.incoming else unit_maps.outgoing).to(flat)
            to, of = (_positions(slot).to(flat.device) for slot in (pair.ours, pair.theirs))
            result[to] = (matrix @ flat[of].reshape(matrix.shape[1], -1)).reshape(len(to), -1)
            left[0][to], left[1][of] = False, False
        result[left[0]] = flat[left[1]]
        tensor = result.reshape(*lengths, *front.shape[len(axes) :]).movedim(tuple(inner), axes)
    return tensor


def _check_sides(
    reference: PermutationSpec, target: PermutationSpec, pairs: Mapping[str, Sequence[SlotPair]]
) -> None:
    """Raise ArchitectureError unless units come in and leave.

    A group of two sizes must come in somewhere and go out elsewhere.
    """
    sides: dict[str, set[bool]] = defaultdict(set)
    for pair in (pair for name in reference.parameters for pair in pairs.get(name, ())):
        # Vectors (biases, scales) go with the units that others make, and tell nothing.
        if len(reference.shapes[pair.ours.tensor]) > 1:
            sides[pair.ours.group].add(pair.incoming)
    for name in reference.names:
        if reference[name].size != target[name].size and sides[name] != {True, False}:
            tensors = sorted({slot.tensor for slot in reference.slots_of(name)})
            raise ArchitectureError(
                f"Expected group {name!r}, whose width differs, on the first axis of a weight that makes its units "
                f"and on another axis of one that reads them but got only one of the two on {tensors}: name in "
                f"transposed=... those that make them on another axis, or give both networks one width here."
            )


def _check_equal(what: str, ours: set[Any], theirs: set[Any]) -> None:
    if ours != theirs:
        raise ArchitectureError(
            f"Expected networks of one architecture with the same {what} but only one of them has "
            f"{sorted(ours ^ theirs)}."
        )


def _by_place(spec: PermutationSpec) -> dict[tuple[str, str, tuple[int, ...]], Slot]:
    return {(slot.group, slot.tensor, slot.axes): slot for slot in spec.slots}


def _by_axes(pairs: Sequence[SlotPair]) -> dict[tuple[int, ...], list[SlotPair]]:
    """Group a tensor's pairs by their axes.

    No axis comes twice.
    """
    found: dict[tuple[int, ...], list[SlotPair]] = defaultdict(list)
    for pair in pairs:
        found[pair.ours.axes].append(pair)
    named = [axis for axes in found for axis in axes]
    if len(set(named)) < len(named):
        slot = pairs[0].ours
        raise SpecError(
            f"Expected the slots of tensor {slot.tensor!r} to stand on the same or on separate axes but got "
            f"{sorted(found)}: drop one of the groups, among them {slot.group!r}, with spec.without(...)."
        )
    return found


def _off_axes(shape: tuple[int, ...], moving: Sequence[int]) -> list[int]:
    return [length for axis, length in enumerate(shape) if axis not in moving]


def _left_over(shape: tuple[int, ...], axes: tuple[int, ...], slots: Sequence[Slot]) -> int:
    """Count the positions that belong to no slot.

    The positions are those on the given axes.
    """
    return math.prod(shape[axis] for axis in axes) - sum(
        slot.layout.size * slot.layout.width for slot in slots
    )


def _positions(slot: Slot) -> Tensor:
    return torch.from_numpy(slot.layout.table()).reshape(-1)
