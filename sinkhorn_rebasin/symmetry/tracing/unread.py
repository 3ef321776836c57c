"""Fix units that no run has read."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.tracing.tape import Tape


def loose_parameters(tape: Tape) -> list[str]:
    """List idle parameters that nothing else ties."""
    idle = {
        name
        for tensor, name in tape.labelling.names.items()
        if name in tape.labelling.parameter_labels and tape.flow.is_idle(tensor)
    }
    if not idle:
        return []
    busy = [labels.units for name, labels in tape.labelling.parameter_labels.items() if name not in idle]
    tied = tape.labelling.relations.tied_to(np.concatenate([np.empty(0, dtype=np.int64), *busy]))
    return sorted(name for name in idle if not tied[tape.labelling.parameter_labels[name].units].all())


def fix_unread(tape: Tape) -> None:
    """Fix parts of parameters that no operation read.

    Note:
        - Later rows of a table of positions, say, which other inputs may read in another order.
        - Of one matrix an expert, the matrices that were read are fixed too.
    """
    relations = tape.labelling.relations
    relations.origin = None
    for name in loose_parameters(tape):
        tape.labelling.fix(
            tape.labelling.parameter_labels[name], "nothing went through it for the inputs tried"
        )
    factors = [factor for each in tape.labelling.parameter_labels.values() for factor in each.factors]
    matrices = [factor.ids[factor.ids >= 0] for factor in factors if len(factor.axes) > 1]
    if matrices:
        reason = "no input tried read some of its matrices"
        relations.fix_partly_untouched(np.concatenate(matrices), reason)
    units = [factor.ids[factor.ids >= 0] for factor in factors]
    if units:
        reason = "nothing reads these positions for inputs of this shape"
        relations.fix_untouched(np.concatenate(units), reason)


def fix_unseen(tape: Tape) -> None:
    """Fix every unit once something was computed unseen."""
    if tape.unseen is not None:
        tape.labelling.relations.origin = tape.unseen
        every = np.arange(tape.labelling.relations.count, dtype=np.int64)
        tape.labelling.relations.fix(every, "it meets what was computed where it cannot be followed")
