"""Return given symmetries, or discover them."""

from __future__ import annotations

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry.discovery import discover_symmetry
from sinkhorn_rebasin.symmetry.proof import refuse_little


def requested_symmetry(
    model: nn.Module,
    spec: PermutationSpec | None,
    example_inputs: ExampleInputs,
    outputs: Outputs = None,
    min_coverage: float = 0.0,
) -> PermutationSpec:
    """Return the given spec, or discover one.

    Raises:
        ArchitectureError: when there is neither a spec nor inputs to discover it with.
        SymmetryError: when less than ``min_coverage`` can be permuted.
    """
    if spec is not None:
        refuse_little(model, spec, min_coverage)
        return spec.counting(outputs)
    if example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to discover the symmetries with, or a spec, but got neither."
        )
    return discover_symmetry(model, example_inputs, outputs=outputs, min_coverage=min_coverage)
