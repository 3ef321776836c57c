"""Why an axis is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.permutations.spec import Frozen, Slot
from sinkhorn_rebasin.symmetry.contraction import contract_classes
from sinkhorn_rebasin.symmetry.solution import Solution
from sinkhorn_rebasin.symmetry.trace import Tape


def frozen_axes(
    named: StateLike, tape: Tape, solution: Solution, slots: Sequence[Slot]
) -> tuple[Frozen, ...]:
    """Every axis longer than one that no slot touches, with the first operation that fixed its units."""
    moved = {(slot.tensor, axis) for slot in slots for axis in slot.axes}
    representative, _ = contract_classes(tape.relations)
    reasons: dict[int, str] = {}
    for units, _values, kind in tape.relations.marks:
        reason = tape.relations.reasons.get(kind, "meets fixed positions of an input or a constant")
        for unit in np.unique(representative[units]):
            reasons.setdefault(int(unit), reason)
    canonical = {id(tensor): name for name, tensor in reversed(list(named.items()))}
    found = []
    for name, tensor in named.items():
        labels = tape.parameter_labels.get(canonical[id(tensor)])
        for axis, length in enumerate(tensor.shape):
            if length < 2 or (name, axis) in moved:
                continue
            if labels is None:
                found.append(Frozen(name, axis, "no operation used the tensor"))
                continue
            own: list[int] = [u for f in labels.on([axis]) for u in f.ids.ravel().tolist() if u >= 0]
            traced = representative[np.array(own, dtype=np.int64)]
            known = [reasons[int(unit)] for unit in traced if int(unit) in reasons]
            found.append(
                Frozen(name, axis, known[0] if known else "its units are told apart by their relations")
            )
    return tuple(found)
