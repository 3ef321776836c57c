"""The symmetries that a re-basin learns over, checked against both networks."""

from __future__ import annotations

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.comparison import check_same_function
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import verify_symmetry
from sinkhorn_rebasin.symmetry.requested import requested_symmetry


def permutable(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec | None,
    example_inputs: ExampleInputs,
    outputs: Outputs,
    min_coverage: float,
    *,
    check: bool,
) -> PermutationSpec:
    """Discover or take over the symmetries of a pair, and check them on both networks.

    Raises:
        ArchitectureError: when no unit can be permuted, or the networks differ in more than their weights.
        SymmetryError: when a claimed symmetry changes the function.
        SpecError: when the spec is of another network, or a group's name cannot name a parameter.
    """
    spec = requested_symmetry(reference, spec, example_inputs, outputs, min_coverage)
    spec.check_state(tensors_of(reference))
    spec.check_constants(tensors_of(target))
    if not spec.groups:
        raise ArchitectureError(
            f"Expected a network with permutable hidden units but {type(reference).__name__} has none. "
            f"What is frozen and why:\n{spec}"
        )
    if check and example_inputs is not None:
        verify_symmetry(target, spec, example_inputs, trials=1)
        check_same_function(reference, target, example_inputs, spec.outputs)
    _check_group_names(spec)
    return spec


def _check_group_names(spec: PermutationSpec) -> None:
    """Raise SpecError unless every group's name can name a parameter."""
    for name in spec.names:
        if not name or "." in name or hasattr(nn.ParameterDict(), name):
            raise SpecError(
                f"Expected group names that can name a parameter, without dots and no attribute of "
                f"torch.nn.ParameterDict, but got {name!r}."
            )
