"""Return given symmetries, or discover them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.comparison import check_comparable
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.completeness import check_spec
from sinkhorn_rebasin.permutations.heads import without_differing_heads
from sinkhorn_rebasin.permutations.ignoring import patterns_in
from sinkhorn_rebasin.symmetry.discovery import discover_symmetry
from sinkhorn_rebasin.symmetry.proof import refuse_little
from sinkhorn_rebasin.symmetry.verification.verification import verify_symmetry


def requested_symmetry(
    model: nn.Module,
    spec: PermutationSpec | None,
    example_inputs: ExampleInputs,
    outputs: Outputs = None,
    min_coverage: float = 0.0,
    ignore: Sequence[str] = (),
    *,
    check: bool = False,
) -> PermutationSpec:
    """Return the given spec, or discover one.

    With ``check`` a given one is verified, where there are inputs.

    Raises:
        ArchitectureError: when there is neither a spec nor inputs to discover it with.
        SpecError: when ``ignore`` names no layer, or the spec is none.
        SymmetryError: when less than ``min_coverage`` can be permuted, or a given symmetry changes the function.
    """
    if spec is not None:
        check_spec(spec)
        refuse_little(model, spec, min_coverage)
        if check and example_inputs is not None:
            verify_symmetry(model, spec, example_inputs, trials=1)
        return spec.counting(outputs).ignoring(*patterns_in(ignore))
    if example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to discover the symmetries with, or a spec, but got neither."
        )
    return discover_symmetry(model, example_inputs, outputs=outputs, min_coverage=min_coverage, ignore=ignore)


def symmetry_of_pair(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec | None,
    example_inputs: ExampleInputs,
    outputs: Outputs = None,
    min_coverage: float = 0.0,
    ignore: Sequence[str] = (),
    *,
    check: bool = False,
    stacklevel: int = 2,
) -> PermutationSpec:
    """Return the symmetries of two networks, which may differ in what is ignored.

    Last layers of other shapes are ignored without being asked for.

    Raises:
        ArchitectureError: when the networks differ in anything else; the first tensor is named.
        SpecError, SymmetryError: as :func:`requested_symmetry`.

    Warns:
        RebasinWarning: Last layers differ in shape; they are named.
    """
    states = tensors_of(reference), tensors_of(target)
    reshaped = [
        name for name in states[0] if name in states[1] and states[0][name].shape != states[1][name].shape
    ]
    check_comparable(reference, target, apart=reshaped)
    spec = requested_symmetry(reference, spec, example_inputs, outputs, min_coverage, ignore, check=check)
    spec = without_differing_heads(spec, states, stacklevel=stacklevel + 1)
    if reshaped:
        check_comparable(reference, target, apart=spec.ignored)
    return spec
