"""Functions of whole matrices, the last two axes: what depends on their order fixes both, batches stay free."""

from __future__ import annotations

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.matrix_products import contract
from sinkhorn_rebasin.symmetry.rules.pooling import with_positions_fixed
from sinkhorn_rebasin.symmetry.rules.registry import rule
from sinkhorn_rebasin.symmetry.rules.scattering import without


@rule("tril", "triu")
def triangle(labelling: Labelling, call: Call) -> Result:
    """Fix rows and columns that a triangle tells apart."""
    labels, rank = labelling.labels(call["self"]), call["self"].dim()
    reason = f"{call.name} depends on the order of its axes"
    return with_positions_fixed(labelling, labels, [rank - 2, rank - 1], labels.shape, reason)


@rule(
    "_linalg_det",
    "_linalg_eigh",
    "_linalg_slogdet",
    "_linalg_svd",
    "linalg_cholesky_ex",
    "linalg_eig",
    "linalg_lu_factor_ex",
    "linalg_matrix_exp",
    "linalg_pinv",
    "linalg_qr",
)
def matrix_function(labelling: Labelling, call: Call) -> Result:
    """Fix the matrices of a decomposition; keep the batches."""
    tensor = call.tensors[0]
    batch = tensor.dim() - 2
    reason = f"{call.name} depends on the order of its axes"
    kept = without(labelling, labelling.labels(tensor), [batch, batch + 1], reason)
    results = []
    for output in call.outputs if isinstance(call.outputs, list | tuple) else [call.outputs]:
        behind = tuple(output.shape[batch:])
        blank = kept.reshaped((*kept.shape[:batch], *[1] * len(behind)))
        axes = range(batch, batch + len(behind))
        results.append(with_positions_fixed(labelling, blank, axes, tuple(output.shape), reason))
    return results


def inverted(labelling: Labelling, labels: Labels, reason: str) -> Labels:
    """Label an inverse: rows and columns swap their labels."""
    rank = len(labels.shape)
    if any({rank - 2, rank - 1} <= set(factor.axes) for factor in labels.factors):
        return with_positions_fixed(labelling, labels, [rank - 2, rank - 1], labels.shape, reason)
    return labels.renamed(labels.shape, [*range(rank - 2), rank - 1, rank - 2])


@rule("linalg_inv_ex")
def inverse(labelling: Labelling, call: Call) -> Result:
    """Label an inverse and its error number."""
    labels = inverted(labelling, labelling.labels(call["A"]), f"{call.name} mixes all of a matrix")
    return [labels, Labels(tuple(call.outputs[1].shape))]


@rule("_linalg_solve_ex")
def solve(labelling: Labelling, call: Call) -> Result:
    """Multiply an inverse with a matrix or a vector."""
    matrix, other = call["A"], call["B"]
    batch = [f"b{axis}" for axis in range(matrix.dim() - 2)]
    columns = [] if other.dim() == matrix.dim() - 1 else ["k"]
    if other.shape[: len(batch)] != matrix.shape[:-2] or other.dim() != len(batch) + 1 + len(columns):
        raise NotUnderstoodError("its batches are broadcast")
    backwards = inverted(labelling, labelling.labels(matrix), f"{call.name} mixes all of a matrix")
    left, right = labelling.labels(other), [*batch, "m", *columns]
    if call["left"]:
        solution = contract(labelling, backwards, [*batch, "n", "m"], left, right, [*batch, "n", *columns])
    else:
        solution = contract(
            labelling, left, [*batch, "k", "m"], backwards, [*batch, "m", "n"], [*batch, "k", "n"]
        )
    result, *factors, error = call.outputs
    return [solution.reshaped(tuple(result.shape)), *[None] * len(factors), Labels(tuple(error.shape))]


@rule("cholesky_solve", "linalg_solve_triangular", "triangular_solve")
def solve_in_order(labelling: Labelling, call: Call) -> Result:
    """Fix a triangle, and the axis that meets it."""
    names = {"linalg_solve_triangular": ("self", "B"), "triangular_solve": ("A", "self")}
    triangle, other = (
        call[name] for name in names.get(call.func.overloadpacket.__name__, ("input2", "self"))
    )
    rank, reason = call.output.dim(), f"{call.name} depends on the order of its axes"
    axis = rank - 2 if call.get("left", True) else rank - 1
    shape = tuple(call.output.shape)
    parts = []
    for tensor, axes in ((triangle, (rank - 2, rank - 1)), (other, (axis,))):
        labels = labelling.labels(tensor)
        labels = labels.reshaped((*[1] * (rank - len(labels.shape)), *labels.shape))
        parts.append(without(labelling, labels, axes, reason))
    fresh = with_positions_fixed(
        labelling, Labels((1,) * rank), [axis], (*[1] * axis, shape[axis], *[1] * (rank - axis - 1)), reason
    )
    return [labelling.join([fresh, *parts], shape)]
