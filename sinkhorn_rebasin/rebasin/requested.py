"""The symmetries that a re-basin learns over, checked against both networks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, NetworkLike, Outputs
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning, SpecError
from sinkhorn_rebasin.files.given_networks import check_weights, modules_of
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.networks.architecture import parameter_names_of, tensors_of
from sinkhorn_rebasin.networks.comparison import check_same_function
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS, ContinuousSpec
from sinkhorn_rebasin.symmetry import verify_symmetry
from sinkhorn_rebasin.symmetry.continuous.canonical import canonicalize
from sinkhorn_rebasin.symmetry.continuous.canonical_forms import canonical_forms
from sinkhorn_rebasin.symmetry.continuous.discovery import discover_continuous
from sinkhorn_rebasin.symmetry.requested import symmetry_of_pair
from sinkhorn_rebasin.symmetry.rescaling.discovery import requested_rescaling

RequestedSymmetry: TypeAlias = Literal["permutation", "full"] | ContinuousSpec


class Prepared(NamedTuple):
    """Hold two networks in the form that their symmetries act on."""

    reference: nn.Module
    target: nn.Module
    spec: PermutationSpec
    continuous: ContinuousSpec
    rescaling: RescalingSpec


def prepared(
    reference: NetworkLike,
    target: NetworkLike,
    example_inputs: ExampleInputs,
    spec: PermutationSpec | None,
    symmetry: RequestedSymmetry,
    rescale: bool | RescalingSpec,
    outputs: Outputs,
    min_coverage: float,
    ignore: Sequence[str] = (),
    *,
    check: bool,
) -> Prepared:
    """Find the symmetries that are asked for, and bring both networks into the form they need.

    Raises:
        ArchitectureError, SymmetryError, SpecError: as for :class:`SinkhornRebasin`.

    Warns:
        RebasinWarning: A group keeps its permutations where ``"full"`` meets a gain that cannot be folded.
    """
    reference, target = modules_of(reference, target)
    for network, role in ((reference, "reference"), (target, "target")):
        check_weights(tensors_of(network), role, parameter_names_of(network))
    spec = permutable(reference, target, spec, example_inputs, outputs, min_coverage, ignore, check=check)
    continuous = requested_continuous(target, spec, symmetry, example_inputs)
    if continuous and check and symmetry == "full":
        forms = canonical_forms((reference, target), spec, continuous, example_inputs)
        (reference, target), continuous = forms.networks, forms.continuous
        if forms.note:
            warnings.warn(
                f"Expected every gain to be folded but got {forms.note}", RebasinWarning, stacklevel=4
            )
    elif continuous and check:
        reference, target = (
            canonicalize(net, spec, continuous, example_inputs) for net in (reference, target)
        )
    for network, whose in ((reference, "reference"), (target, "target")):
        check_canonical(tensors_of(network), continuous, whose)
    rescaling = rescaling_beside(target, spec, rescale, example_inputs, continuous, check=check)
    return Prepared(reference, target, spec, continuous, rescaling)


def rescaling_beside(
    model: nn.Module,
    spec: PermutationSpec,
    rescale: bool | RescalingSpec,
    example_inputs: ExampleInputs,
    continuous: ContinuousSpec,
    *,
    check: bool = True,
) -> RescalingSpec:
    """Return the rescalings that are asked for, of groups that have no maps.

    Raises:
        SymmetryError, SpecError, ArchitectureError: as :func:`requested_rescaling`.
    """
    turned = {symmetry.group.name for symmetry in continuous.symmetries}
    found = requested_rescaling(model, spec, rescale, example_inputs, turned=turned, check=check)
    return beside_maps(found, continuous)


def beside_maps(rescaling: RescalingSpec, continuous: ContinuousSpec) -> RescalingSpec:
    """Keep the rescalings of groups that have no maps.

    Scales of a group with maps are among them, or would take its gains away from one.

    >>> beside_maps(RescalingSpec(("hidden",)), NO_CONTINUOUS).groups
    ('hidden',)
    """
    kept = tuple(one for one in rescaling.generators if one.group not in continuous)
    return RescalingSpec(rescaling.groups, kept) if continuous else rescaling


def requested_continuous(
    model: nn.Module, spec: PermutationSpec, symmetry: RequestedSymmetry, example_inputs: ExampleInputs
) -> ContinuousSpec:
    """Return the continuous symmetries that are asked for.

    Raises:
        SpecError: when ``symmetry`` is no known name.
        ArchitectureError: when they are to be discovered without example inputs.
    """
    if isinstance(symmetry, ContinuousSpec):
        return symmetry
    if symmetry == "permutation":
        return NO_CONTINUOUS
    if symmetry != "full":
        raise SpecError(
            f"Expected symmetry to be 'permutation', 'full' or a ContinuousSpec but got {symmetry!r}."
        )
    if example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to discover the continuous symmetries with, but got none."
        )
    return discover_continuous(model, spec, example_inputs)


def permutable(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec | None,
    example_inputs: ExampleInputs,
    outputs: Outputs,
    min_coverage: float,
    ignore: Sequence[str] = (),
    *,
    check: bool,
) -> PermutationSpec:
    """Discover or take over the symmetries of a pair, and check them on both networks.

    Raises:
        ArchitectureError: when no unit can be permuted, or the networks differ in more than their weights.
        SymmetryError: when a claimed symmetry changes the function.
        SpecError: when the spec is of another network, or a group's name cannot name a parameter.
    """
    spec = symmetry_of_pair(
        reference, target, spec, example_inputs, outputs, min_coverage, ignore, stacklevel=5
    )
    check_state(spec, tensors_of(reference))
    check_state(spec, tensors_of(target))
    spec.check_constants(tensors_of(target))
    if not spec.groups:
        raise ArchitectureError(
            f"Expected a network with permutable hidden units but {type(reference).__name__} has none. "
            f"What is frozen and why:\n{spec}"
        )
    if check and example_inputs is not None:
        verify_symmetry(target, spec, example_inputs, trials=1)
        check_same_function(reference, target, example_inputs, spec.outputs, apart=spec.ignored)
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
