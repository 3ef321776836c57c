"""Two networks in the form that their continuous symmetries act on, where they have some."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS, ContinuousSpec
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry, requested_continuous
from sinkhorn_rebasin.symmetry import canonicalize
from sinkhorn_rebasin.symmetry.continuous.canonical_forms import canonical_forms


def canonical_pair(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    symmetry: RequestedSymmetry,
    example_inputs: ExampleInputs,
) -> tuple[nn.Module, nn.Module, ContinuousSpec, tuple[str, ...]]:
    """Find the continuous symmetries of a pair, and bring both networks into canonical form.

    Groups that cannot be brought there, such as one whose gain is tied, keep their permutations.

    Returns:
        Both networks, of the same class, their continuous symmetries, and what to tell of them.
    """
    stay = reference, target, NO_CONTINUOUS
    if symmetry == "full" and example_inputs is None:
        return *stay, (
            "permutations alone, because there are no example inputs to find larger symmetries with",
        )
    try:
        continuous = requested_continuous(target, spec, symmetry, example_inputs)
        if not continuous:
            return *stay, ()
        if symmetry != "full":
            pair = [
                canonicalize(network, spec, continuous, example_inputs) for network in (reference, target)
            ]
            return pair[0], pair[1], continuous, tuple(_told(continuous))
        forms = canonical_forms((reference, target), spec, continuous, example_inputs)
    except (SymmetryError, ArchitectureError) as error:
        if symmetry != "full":
            raise
        return *stay, (f"permutations alone: {str(error).splitlines()[0]}",)
    told = [*_told(forms.continuous), *([forms.note] if forms.note else [])]
    return forms.networks[0], forms.networks[1], forms.continuous, tuple(told)


def _told(continuous: ContinuousSpec) -> Iterator[str]:
    """Say which groups are mixed by which maps."""
    for kind in ("orthogonal", "linear", "rotary"):
        names = [symmetry.group.name for symmetry in continuous.symmetries if symmetry.kind == kind]
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            yield f"{kind} maps of {', '.join(names[:2])}{more}, after both networks were brought into canonical form"
