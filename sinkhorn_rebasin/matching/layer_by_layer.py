"""Matching one layer after the other by the weights that come in from layers already matched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.pair_of_states import PairOfStates, comparable_states
from sinkhorn_rebasin.matching.weights.similarity import units_of
from sinkhorn_rebasin.permutations import Group, PermutationSpec, Slot, identity_permutations
from sinkhorn_rebasin.permutations.action import permute_tensor

Choose = Callable[[Tensor, Tensor], tuple[Tensor, float]]
"""Features of both networks' units, (n, elements) each, to indices (n,) and the value of that choice."""


def match_layer_by_layer(networks: PairOfStates, choose: Choose, *, method: str) -> Alignment:
    """Match every group once, best understood first.

    A group is matched by what its units own on tensors already understood.

    A unit's features are its entries on the first axis, where PyTorch's linear, convolution and norm layers have
    their outputs, of every parameter whose other groups are already matched: the weights that come in, the bias,
    the scale. A group without such a matrix, as that of an embedding, is seen on any axis. Next comes the group of
    which the largest share of these entries is understood: in a chain of layers, the first layer not yet matched.

    Raises:
        SpecError: when the spec has nested groups, which are named.
    """
    spec = networks.spec
    first, second = comparable_states(*networks)
    permutations, objective = identity_permutations(spec), 0.0
    for group, slots in groups_in_order(spec, method):
        ours, theirs = [], []
        for slot in slots:
            others = tuple(other for other in spec.slots_on(slot.tensor) if other != slot)
            moved = permute_tensor(second[slot.tensor], others, permutations)
            ours.append(units_of(first[slot.tensor], slot)[0].double().cpu())
            theirs.append(units_of(moved, slot)[0].double().cpu())
        indices, value = choose(torch.cat(ours, 1), torch.cat(theirs, 1))
        permutations[group.name] = indices
        objective += value
    return Alignment(permutations, spec, (objective,), method=method)


def groups_in_order(
    spec: PermutationSpec, method: str, instead: str | None = None
) -> Iterator[tuple[Group, list[Slot]]]:
    """Order groups by how well they are understood.

    Yields every group once, with the slots whose other groups came before it.

    Args:
        spec: whose groups.
        method: its name, for the message.
        instead: what to do with nested groups; None: drop them, or use another matching.

    Raises:
        SpecError: when a group is nested or has several blocks, or no such slot; it is named.
    """
    for group in spec.groups:
        if group.parent is not None or group.blocks > 1:
            where = f"inside {group.parent!r}" if group.parent is not None else f"of {group.blocks} blocks"
            dropped = (
                f"drop it with spec.without({group.name!r}), or use weight_matching or activation_matching"
            )
            raise SpecError(
                f"Expected groups without nesting for {method} but got {group.name!r} {where}: "
                f"{instead or dropped}."
            )
    known: set[str] = set()
    while len(known) < len(spec.groups):
        waiting = [group for group in spec.groups if group.name not in known]
        group = max(waiting, key=lambda group: _share_understood(spec, group, known))
        yield group, _understood(spec, group, known)
        known.add(group.name)


def _share_understood(spec: PermutationSpec, group: Group, known: set[str]) -> float:
    """Measure how much of a group is comparable.

    It is the comparable share of the elements of the group's incoming tensors.
    """
    whole = _seen(spec, group, set(spec.names))
    part = _seen(spec, group, known)
    sizes = [
        sum(math.prod(spec.shapes[slot.tensor]) for slot in _incoming(spec, group, slots))
        for slots in (part, whole)
    ]
    return sizes[0] / max(1, sizes[1])


def _understood(spec: PermutationSpec, group: Group, known: set[str]) -> list[Slot]:
    """Select the slots that can be compared.

    The group's entries can be compared where no other group on the tensor is still to be matched.
    """
    seen = _seen(spec, group, known)
    if not seen:
        raise SpecError(
            f"Expected a parameter of group {group.name!r} whose other groups come before it but got none: match "
            f"this network with weight_matching, or drop the group with spec.without({group.name!r})."
        )
    return _incoming(spec, group, seen) or seen


def _incoming(spec: PermutationSpec, group: Group, slots: list[Slot]) -> list[Slot]:
    """Select the slots on incoming tensors.

    They lie on the first axis, if a matrix is among all of the group's slots there.
    """
    first = [slot for slot in spec.slots_of(group.name) if slot.axes[0] == 0]
    if not any(len(spec.shapes[slot.tensor]) > 1 for slot in first):
        return slots
    return [slot for slot in slots if slot in first]


def _seen(spec: PermutationSpec, group: Group, known: set[str]) -> list[Slot]:
    return [
        slot
        for slot in spec.slots_of(group.name)
        if slot.tensor in spec.compared
        and all(other.group in known for other in spec.slots_on(slot.tensor) if other != slot)
    ]
