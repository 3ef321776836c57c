"""What fixed bases pin down: which tensors tell where a group belongs before the others are placed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Container, Sequence
from dataclasses import replace

from sinkhorn_rebasin.permutations import Group, PermutationSpec


def understood(
    spec: PermutationSpec,
    together: Sequence[Group],
    waiting: Collection[str],
    turned: Container[str] = (),
) -> PermutationSpec:
    """Keep tensors that no other waiting group stands on.

    Those that one of these groups has on two axes are kept only where there are no others: what they say of one axis
    depends on where the other is, which is not known yet. So are those that a turned group has in two parts, as
    queries and keys in one tensor. Their map fits any stream, and would hold the stream where it is before hidden
    layers have told of it: heads are placed by what they write.

    Args:
        spec: the symmetries.
        together: a group and what is nested in it.
        waiting: names of the groups that are not placed yet, these among them.
        turned: names of the groups that are turned.

    Example:
        >>> from sinkhorn_rebasin.permutations import Layout, Slot
        >>> slots = (Slot("a", "in", (0,), Layout(1, 2)), Slot("a", "out", (1,), Layout(1, 2)))
        >>> slots += (Slot("b", "out", (0,), Layout(1, 3)),)
        >>> spec = PermutationSpec((Group("a", 2), Group("b", 3)), slots, {"in": (2, 5), "out": (3, 2)})
        >>> [slot.tensor for slot in understood(spec, spec.groups[:1], {"a", "b"}).slots]
        ['in']
    """
    names = {group.name for group in together}
    hidden = tensors_of_groups(spec, set(waiting) - names)
    places = {
        (slot.group, slot.tensor, slot.axes, slot.layout if slot.group in turned else None)
        for slot in spec.slots
        if slot.group in names
    }
    counts = Counter((group, tensor) for group, tensor, *_ in places)
    several = {tensor for (_, tensor), count in counts.items() if count > 1}
    if {tensor for _, tensor in counts} - hidden - several:
        hidden |= several
    return without_tensors(spec, hidden)


def share(spec: PermutationSpec, together: Sequence[Group], kept: PermutationSpec) -> float:
    """Say which share of a family's elements is understood."""
    part, whole = (
        sum(
            math.prod(spec.shapes[name])
            for name in {slot.tensor for group in together for slot in each.slots_of(group.name)}
            if name in spec.compared
        )
        for each in (kept, spec)
    )
    return part / max(1, whole)


def placed_alone(spec: PermutationSpec, waiting: Collection[str]) -> PermutationSpec:
    """Keep tensors that no waiting group stands on."""
    return without_tensors(spec, tensors_of_groups(spec, waiting))


def tensors_of_groups(spec: PermutationSpec, groups: Collection[str]) -> set[str]:
    """List the tensors of some groups."""
    return {slot.tensor for slot in spec.slots if slot.group in groups}


def without_tensors(spec: PermutationSpec, hidden: Collection[str]) -> PermutationSpec:
    """Leave out the slots on some tensors."""
    return replace(spec, slots=tuple(slot for slot in spec.slots if slot.tensor not in hidden))
