"""Specs written by hand as in Git Re-Basin: for each tensor the permutation, or None, of each axis."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import SpecError, unbuilt_message
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.slots import Frozen, Group, Slot
from sinkhorn_rebasin.permutations.structure import AxesToPerm, SpecStructure

_BY_HAND = "axes_to_perm has no permutation for it"
_UNNAMED = "axes_to_perm does not name the tensor"
_STATISTICS = (".running_mean", ".running_var")


def from_axes_to_perm(axes_to_perm: AxesToPerm, state_or_model: StateLike | nn.Module) -> SpecStructure:
    """Read a spec from Git Re-Basin's dictionary.

    It leads from tensor names to permutation names, one or None per axis. Sizes come from the tensors. Tensors that
    the dictionary does not name stay as they are. Of a network, the names that are buffers are known and tied names
    move together; of a state, running statistics are told by their names.

    Raises:
        SpecError: when a tensor is unknown, has another number of axes, or a permutation has two sizes.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> by_hand = {"0.weight": ("P", None), "0.bias": ("P",), "2.weight": (None, "P"), "2.bias": (None,)}
        >>> spec = from_axes_to_perm(by_hand, net)
        >>> spec.groups, to_axes_to_perm(spec) == by_hand
        ((Group(name='P', size=8, blocks=1, parent=None),), True)

    Source: the format of Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023).
    """
    parameters, buffers = _tensors(state_or_model)
    tensors = {**parameters, **buffers}
    by_hand = _with_ties(axes_to_perm, tensors)
    first: dict[str, tuple[str, int]] = {}
    groups: dict[str, Group] = {}
    slots: list[Slot] = []
    for name in [name for name in tensors if name in by_hand]:
        if message := unbuilt_message(name, tensors[name]):
            raise SpecError(message)
        shape, permutations = tuple(tensors[name].shape), by_hand[name]
        if isinstance(permutations, str) or len(permutations) != len(shape):
            raise SpecError(
                f"Expected one permutation or None for each axis of tensor {name!r} of shape {shape} but got "
                f"{permutations!r}."
            )
        for axis, permutation in enumerate(permutations):
            if permutation is None:
                continue
            size = shape[axis]
            tensor, place = first.setdefault(permutation, (name, axis))
            group = groups.setdefault(permutation, Group(permutation, size))
            if group.size != size:
                raise SpecError(
                    f"Expected permutation {permutation!r} to have {group.size} units, as on axis {place} of "
                    f"tensor {tensor!r}, but got {size} on axis {axis} of tensor {name!r}. Where one unit owns "
                    f"several positions, as after a flatten, use discover_symmetry."
                )
            slots.append(Slot(permutation, name, (axis,), Layout(1, size)))
    named_buffers = {name: tensor for name, tensor in buffers.items() if name in by_hand}
    shapes = {name: tuple(tensor.shape) for name, tensor in {**parameters, **named_buffers}.items()}
    moved = {(slot.tensor, slot.axes[0]) for slot in slots}
    frozen = tuple(
        Frozen(name, axis, _BY_HAND if name in by_hand else _UNNAMED)
        for name, shape in shapes.items()
        for axis, length in enumerate(shape)
        if length > 1 and (name, axis) not in moved
    )
    tied = _tied({name: tensors[name] for name in shapes})
    return SpecStructure(tuple(groups.values()), tuple(slots), shapes, frozen, frozenset(named_buffers), tied)


def to_axes_to_perm(spec: SpecStructure) -> dict[str, tuple[str | None, ...]]:
    """Name each tensor axis's group, or None.

    Raises:
        SpecError: when the spec has a slot that the dictionary cannot say: of a nested group, on part of an
            axis, over several axes, or with several positions a unit.
    """
    axes: dict[str, list[str | None]] = {name: [None] * len(shape) for name, shape in spec.shapes.items()}
    for slot in spec.slots:
        group, shape = spec[slot.group], spec.shapes[slot.tensor]
        length = math.prod(shape[axis] for axis in slot.axes)
        trouble = None
        if group.parent is not None or group.blocks > 1:
            trouble = f"nested in {group.parent!r}" if group.parent else f"in {group.blocks} blocks"
        elif len(slot.axes) > 1:
            trouble = "over several axes read as one"
        elif slot.layout.width > 1:
            trouble = f"with {slot.layout.width} positions of each unit"
        elif not slot.layout.is_whole_axis(length):
            trouble = f"on {group.size} of {length} positions, or in another order"
        if trouble:
            raise SpecError(
                f"Expected every group to permute whole axes, as axes_to_perm can say, but got group "
                f"{slot.group!r} on axes {slot.axes} of tensor {slot.tensor!r} {trouble}. Leave it out with "
                f"spec.without({slot.group!r})."
            )
        axes[slot.tensor][slot.axes[0]] = slot.group
    return {name: tuple(permutations) for name, permutations in axes.items()}


def _tensors(state_or_model: StateLike | nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Separate parameters from buffers, by name."""
    if isinstance(state_or_model, nn.Module):
        parameters = dict(state_or_model.named_parameters(remove_duplicate=False))
        return dict(parameters), dict(state_or_model.named_buffers(remove_duplicate=False))
    if not isinstance(state_or_model, Mapping):
        raise SpecError(
            f"Expected a network, or a state, tensor names to tensors, but got {type(state_or_model).__name__}."
        )
    # The number of batches that a norm layer has seen is no weight.
    weights = {name: tensor for name, tensor in state_or_model.items() if tensor.is_floating_point()}
    statistics = {name: tensor for name, tensor in weights.items() if name.endswith(_STATISTICS)}
    return {name: tensor for name, tensor in weights.items() if name not in statistics}, statistics


def _tied(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, ...], ...]:
    """List the names that share one tensor."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return tuple(tuple(own) for own in names.values() if len(own) > 1)


def _with_ties(axes_to_perm: AxesToPerm, tensors: Mapping[str, Tensor]) -> AxesToPerm:
    """Complete the dictionary by names of tied tensors.

    Every name of a tensor that it names gets an entry. Unknown names raise.
    """
    entries: dict[int, str] = {}
    for name, permutations in axes_to_perm.items():
        if name not in tensors:
            raise SpecError(
                f"Expected axes_to_perm to name tensors of the network but got {name!r} "
                f"{tuple(permutations)}; it has {', '.join(list(tensors)[:6])}{', ...' if len(tensors) > 6 else ''}."
            )
        other = entries.setdefault(id(tensors[name]), name)
        if tuple(axes_to_perm[other]) != tuple(permutations):
            raise SpecError(
                f"Expected the tied tensors {other!r} and {name!r}, which are one tensor, to be permuted alike "
                f"but got {tuple(axes_to_perm[other])} and {tuple(permutations)}."
            )
    return {
        name: axes_to_perm[entries[id(tensor)]] for name, tensor in tensors.items() if id(tensor) in entries
    }
