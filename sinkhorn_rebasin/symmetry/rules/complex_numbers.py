"""Complex numbers and their two parts, the last axis of a real view."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels, fixed_factor
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.rules.registry import rule


@rule("view_as_real", "view_as_real_copy")
def view_as_real(labelling: Labelling, call: Call) -> Result:
    """Put both parts along a new fixed axis."""
    labels = labelling.labels(call["self"])
    shape = tuple(call.output.shape)
    return Labels(shape, (*labels.factors, fixed_factor(len(shape) - 1, 2)))


@rule("view_as_complex", "view_as_complex_copy")
def view_as_complex(labelling: Labelling, call: Call) -> Result:
    """Join the two positions of the last axis."""
    labels = labelling.labels(call["self"])
    axis, shape = len(labels.shape) - 1, tuple(call.output.shape)
    parts = [labels.taken(axis, np.array([part])).reshaped(shape or (1,)) for part in (0, 1)]
    for part in parts:
        for factor in part.factors:
            labelling.relations.mark_partial(factor.ids, f"{call.name} acts on part of the units")
    return labelling.join(parts, shape or (1,)).reshaped(shape)
