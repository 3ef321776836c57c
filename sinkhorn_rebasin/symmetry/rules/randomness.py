"""Draw random numbers alike at every position, but for seeded runs."""

from __future__ import annotations

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.registry import rule


@rule(
    "bernoulli",
    "cauchy",
    "exponential",
    "geometric",
    "log_normal",
    "normal",
    "normal_functional",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "uniform",
)
def drawn(labelling: Labelling, call: Call) -> Result:
    """Label independent draws, by probabilities where given."""
    if not labelling.noise_is_symmetric:
        raise NotUnderstoodError("it is random")
    overload = call.func._overloadname
    if overload == "Tensor" or (call.name == "aten::bernoulli" and overload in ("default", "out")):
        given = call.get("p") if call.get("p") is not None else call["self"]
        return labelling.join([labelling.labels(given)], call.output.shape)
    if "Tensor_" in overload or overload.endswith("_Tensor"):
        raise NotUnderstoodError("its distribution differs from place to place")
    return Labels(tuple(call.output.shape))
