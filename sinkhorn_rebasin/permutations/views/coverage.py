"""How much of a network can be permuted."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from sinkhorn_rebasin.permutations.structure import SpecStructure

if TYPE_CHECKING:
    from sinkhorn_rebasin.permutations.slots import Frozen

# Reasons for which an axis stays: see Frozen.
OUTPUT = "output of the network"
MEETS = "meets fixed positions of an input or a constant"
MEETS_COMPUTED = "meets computed positions that are fixed"
UNUSED = "no operation used the tensor"


def covered_share(spec: SpecStructure, groups: Collection[str] | None = None) -> float:
    """Measure the share of parameter elements on these groups.

    Such an element lies on at least one of their positions. None stands for all groups.
    """
    total = sum(math.prod(spec.shapes[name]) for name in spec.parameters)
    tensors = (
        spec.shapes if groups is None else {slot.tensor for name in groups for slot in spec.slots_of(name)}
    )
    covered = sum(_covered(spec, name, groups) for name in tensors if name in spec.parameters)
    return covered / total if total else 0.0


def share_of_what_could_move(spec: SpecStructure) -> float:
    """Measure the share of movable elements that do move.

    Those that move lie on at least one permutable position. The share of none is one. Tensors with nothing but axes
    of inputs and outputs (the last bias), unused ones and scalars could not.
    """
    total = covered = 0
    for name in movable(spec):
        total += math.prod(spec.shapes[name])
        covered += _covered(spec, name, None)
    return covered / total if total else 1.0


def movable(spec: SpecStructure) -> list[str]:
    """Name the parameters that could move.

    Left out are single numbers, unused tensors, and those that only the network's inputs and outputs hold.

    >>> from sinkhorn_rebasin.permutations import Frozen, PermutationSpec
    >>> held = Frozen("bias", 0, OUTPUT), Frozen("scale", 0, "read in order")
    >>> movable(PermutationSpec((), (), {"bias": (3,), "scale": (3,)}, held))
    ['scale']
    """
    reasons: dict[str, set[str]] = {}
    for item in spec.frozen:
        reasons.setdefault(item.tensor, set()).add(item.reason)
    by_nature = {name for name, found in reasons.items() if _is_natural(found)}
    return [
        name
        for name in spec.parameters
        if math.prod(spec.shapes[name]) > 1 and (spec.slots_on(name) or name not in by_nature)
    ]


def _is_natural(reasons: Collection[str]) -> bool:
    return reasons == {UNUSED} or (OUTPUT in reasons and set(reasons) <= {OUTPUT, MEETS, UNUSED})


def what_holds(spec: SpecStructure) -> str:
    """Name the operation that keeps most elements fixed.

    It counts elements that could move, and tells what keeps them, where and why.
    """
    held: dict[tuple[str, str, str], int] = {}
    reasons: dict[str, list[Frozen]] = {}
    for item in spec.frozen:
        reasons.setdefault(item.tensor, []).append(item)
    for name in movable(spec):
        rest = math.prod(spec.shapes[name]) - _covered(spec, name, None)
        causes = sorted(reasons.get(name, []), key=lambda item: item.reason in (OUTPUT, MEETS))
        if rest and causes:
            cause = causes[0].operation, causes[0].source, causes[0].reason
            held[cause] = held.get(cause, 0) + rest
    if not held:
        return ""
    operation, source, reason = max(held, key=lambda cause: held[cause])
    place = f"{operation or 'no operation'}{f' at {source}' if source else ''}"
    return f"{place} holds {max(held.values()):,} of them fast ({reason})"


def _covered(spec: SpecStructure, name: str, groups: Collection[str] | None) -> int:
    slots = [slot for slot in spec.slots_on(name) if groups is None or slot.group in groups]
    shape = spec.shapes[name]
    if not slots or not math.prod(shape):
        return 0
    masks: dict[tuple[int, ...], np.ndarray] = {}
    for slot in slots:
        length = math.prod(shape[axis] for axis in slot.axes)
        masks.setdefault(slot.axes, np.zeros(length, dtype=bool))[slot.layout.table().ravel()] = True
    if any(mask.all() for mask in masks.values()):
        return math.prod(shape)
    moved = np.zeros(shape, dtype=bool)
    for axes, mask in masks.items():
        view = mask.reshape([shape[axis] for axis in axes])
        moved |= np.expand_dims(view, [axis for axis in range(len(shape)) if axis not in axes])
    return int(moved.sum())
