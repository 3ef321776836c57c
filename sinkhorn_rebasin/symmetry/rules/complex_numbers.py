"""Complex numbers and their two parts, the last axis of a real view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labels import Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.rules.registry import rule

if TYPE_CHECKING:
    from sinkhorn_rebasin.symmetry.tracing.tape import Tape


@rule("view_as_real", "view_as_real_copy")
def view_as_real(tape: Tape, call: Call) -> Result:
    """Both parts are functions of the same number, told apart along the new last axis."""
    labels = tape.labels(call["self"])
    shape = tuple(call.output.shape)
    return Labels(shape, (*labels.factors, fixed_factor(len(shape) - 1, 2)))


@rule("view_as_complex", "view_as_complex_copy")
def view_as_complex(tape: Tape, call: Call) -> Result:
    """The two positions of the last axis meet in one number, each in its part."""
    labels = tape.labels(call["self"])
    axis, shape = len(labels.shape) - 1, tuple(call.output.shape)
    parts = [labels.taken(axis, np.array([part])).reshaped(shape or (1,)) for part in (0, 1)]
    for part in parts:
        for factor in part.factors:
            tape.relations.mark_partial(factor.ids, f"{call.name} acts on part of the units")
    return tape.join(parts, shape or (1,)).reshaped(shape)
