"""Both networks with parameters more, where that is asked for, so that their streams turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.networks.expanding import expand
from sinkhorn_rebasin.networks.untying import untie
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_continuous, discover_symmetry


class Larger(NamedTuple):
    """Hold two networks that compute what those given did, the symmetries they have, and what to tell of it."""

    reference: nn.Module
    target: nn.Module
    spec: PermutationSpec | None
    told: tuple[str, ...]


def larger_pair(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec | None,
    symmetry: object,
    example_inputs: ExampleInputs,
    *,
    untied: bool,
    expanded: bool,
) -> Larger:
    """Give tied parameters a tensor each, and norms whose gain cannot be folded a matrix.

    Args:
        reference, target: the networks; neither is changed.
        spec: their symmetries, if known; those of larger networks are discovered anew.
        symmetry: what is asked for; matrices are of use with ``"full"`` alone.
        example_inputs: what the networks take.
        untied: untie both.
        expanded: give norms a matrix.

    Raises:
        ArchitectureError: nothing is tied, or there are no inputs to find and prove it with.
        SpecError: matrices for anything but ``"full"``.
    """
    if not (untied or expanded):
        return Larger(reference, target, spec, ())
    if example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to discover the symmetries of larger networks with, but got none: pass "
            "example_inputs=."
        )
    if expanded and symmetry != "full":
        raise SpecError(
            f'Expected symmetry="full" with expand=True, since permutations need no matrix, but got {symmetry!r}.'
        )
    told: list[str] = []
    before = _parameters(reference)
    if untied:
        outputs = None if spec is None else spec.outputs
        reference, target = untie(reference), untie(target)
        spec = discover_symmetry(reference, example_inputs, outputs=outputs)
        told += [f"untied: {_parameters(reference) - before:,} parameters more in both networks"]
    if expanded:
        spec = discover_symmetry(reference, example_inputs) if spec is None else spec
        symmetries = discover_continuous(target, spec, example_inputs).symmetries
        gains = list(dict.fromkeys(name for each in symmetries for name in each.unfoldable))
        if gains:
            before = _parameters(reference)
            reference, target = (expand(network, gains, example_inputs) for network in (reference, target))
            spec = discover_symmetry(reference, example_inputs, outputs=spec.outputs)
        told += _told(gains, _parameters(reference) - before)
    return Larger(reference, target, spec, tuple(told))


def _told(gains: list[str], more: int) -> Iterator[str]:
    if gains:
        yield f"expanded: {', '.join(gains)} became matrices, {more:,} parameters more in both networks"
    else:
        yield "not expanded: every gain that must be one can be folded"


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
