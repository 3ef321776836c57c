"""Reduce runs of positions whose ends are data."""

from __future__ import annotations

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import fixed_labels
from sinkhorn_rebasin.symmetry.labels.outcome import Result
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import rule


def _fix(labelling: Labelling, call: Call, names: tuple[str, ...], reason: str) -> None:
    """Fix what some arguments hold."""
    for name in names:
        if call[name] is not None:
            labelling.fix(labelling.labels(call[name]), reason)


@rule("segment_reduce")
def segment_reduce(labelling: Labelling, call: Call) -> Result:
    """Reduce runs of positions of one axis."""
    reason = f"{call.name} adds up runs of positions"
    _fix(labelling, call, ("lengths", "indices", "offsets"), reason)
    axes = range(call["axis"] + 1)
    return with_positions_fixed(
        labelling, labelling.labels(call["data"]), axes, tuple(call.output.shape), reason
    )


@rule("_pack_padded_sequence")
def pack(labelling: Labelling, call: Call) -> Result:
    """Lay steps of sequences end to end."""
    labels, reason = labelling.labels(call["input"]), f"{call.name} lays steps end to end"
    _fix(labelling, call, ("lengths",), reason)
    packed, sizes = call.outputs
    shape = (packed.shape[0], 1, *packed.shape[1:])
    steps = with_positions_fixed(labelling, labels, [0, 1], shape, reason).reshaped(tuple(packed.shape))
    return [steps, fixed_labels(sizes.shape)]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(labelling: Labelling, call: Call) -> Result:
    """Sum rows of a table by bag; keep the columns."""
    reason = f"{call.name} looks up its positions by data"
    _fix(labelling, call, ("indices", "offsets", "per_sample_weights"), reason)
    bags, *rest = call.outputs
    bag_labels = with_positions_fixed(
        labelling, labelling.labels(call["weight"]), [0], tuple(bags.shape), reason
    )
    # Where a maximum is, there is a row of it for each column.
    others = [bag_labels if output.shape == bags.shape else fixed_labels(output.shape) for output in rest]
    return [bag_labels, *others]
