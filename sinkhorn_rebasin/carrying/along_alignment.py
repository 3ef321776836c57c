"""An update carried by an alignment: everything that moves the base's weights moves the difference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.carrying.update import wide
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.matching.across_widths.padding import padded_state
from sinkhorn_rebasin.matching.coordinates import Coordinates
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.networks.architecture import named_tensors, tensors_of
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry
from sinkhorn_rebasin.symmetry import canonicalize


def carried_along(
    problem: CarryProblem, alignment: Alignment, canonical: bool, notes: tuple[str, ...] = ()
) -> Carried:
    r"""Carry an update by an alignment.

    .. math:: \Delta' = \pi(\theta_{\mathrm{tuned}}) - \pi(\theta_{\mathrm{base}}) =
        \pi(\theta_{\mathrm{tuned}} - \theta_{\mathrm{base}})

    since π is linear in the weights, whatever it holds: permutations, signs, scales and maps.

    Args:
        problem: the networks.
        alignment: of the base with the new base.
        canonical: whether it is for networks in canonical form; all three are then brought there.
        notes: what to tell.

    Raises:
        ArchitectureError: the alignment has a receipt of other networks, or the networks do not have the form that
            its maps act on.
    """
    tuned, base, new_base = in_shape_of_new(problem)
    if alignment.receipt is not None and not canonical:
        alignment.receipt.check_target(tensors_of(base))
        alignment.receipt.check_reference(tensors_of(new_base))
    frame: State = {}
    if alignment.continuous is not None:
        canonical = canonical or not is_canonical(alignment.continuous, tuned, base, new_base)
    if canonical and alignment.continuous is not None:
        tuned, base, new_base = (
            canonical_form(network, alignment, problem) for network in (tuned, base, new_base)
        )
        frame = {name: tensor.detach() for name, tensor in named_tensors(new_base).items()}
    names = [name for name, _ in base.named_parameters(remove_duplicate=False)]
    first, second = named_tensors(tuned), named_tensors(base)
    difference = {name: wide(first[name]) - wide(second[name]) for name in names}
    if not frame:
        difference = {name: _exact(difference[name], first[name], second[name]) for name in names}
    moved = Coordinates.of(alignment).moved(difference)
    return Carried({name: moved[name] for name in names}, frame, notes)


def carried_by_match(
    problem: CarryProblem,
    matched: Callable[[RequestedSymmetry], tuple[Alignment, tuple[str, ...]]],
    symmetry: RequestedSymmetry,
) -> Carried:
    """Carry an update by the alignment that a method finds.

    A tuned network that has no form which maps act on, such as one whose tied gain was tuned, is carried by
    permutations.

    Args:
        problem: the networks.
        matched: from the symmetry asked for to the alignment, of canonical forms where it has maps, and what to tell.
        symmetry: ``"full"``, or ``"permutation"``.
    """
    alignment, notes = matched(symmetry)
    try:
        return carried_along(problem, alignment, bool(alignment.continuous), notes)
    except SymmetryError as error:
        if symmetry != "full" or not alignment.continuous:
            raise
        reason = str(error).splitlines()[0]
    alignment, notes = matched("permutation")
    return carried_along(problem, alignment, False, (*notes, f"permutations alone: {reason}"))


def in_shape_of_new(problem: CarryProblem) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the tuned network, its base and the new base in one architecture.

    A narrower base is padded with units of zeros. A head of other labels is the base's, or zero where the base has
    other labels than the new one, in both networks.
    """
    if problem.same_widths and not problem.heads:
        return problem.tuned, problem.base, problem.new_base
    made = [_in_shape(network, problem) for network in (problem.tuned, problem.base)]
    return made[0], made[1], problem.new_base


def canonical_form(network: nn.Module, alignment: Alignment, problem: CarryProblem) -> nn.Module:
    """Bring a network into the form that an alignment's maps act on.

    Raises:
        ArchitectureError: there are no example inputs to prove the form with.
    """
    assert alignment.continuous is not None
    if problem.example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to bring the networks into the form that the alignment's maps act on, but got "
            "none: pass example_inputs=, or networks that are in canonical form already."
        )
    return canonicalize(network, alignment.spec, alignment.continuous, problem.example_inputs)


def is_canonical(continuous: ContinuousSpec, *networks: nn.Module) -> bool:
    """Tell whether networks have the form that maps act on."""
    try:
        for network in networks:
            check_canonical(tensors_of(network), continuous, "network")
    except ArchitectureError:
        return False
    return True


def _in_shape(network: nn.Module, problem: CarryProblem) -> nn.Module:
    """Write a network's tensors into a copy of the new base."""
    state, like = tensors_of(network), tensors_of(problem.new_base)
    base = tensors_of(problem.base)
    for name in problem.heads:
        state[name] = base[name] if base[name].shape == like[name].shape else torch.zeros_like(like[name])
    if not problem.same_widths:
        zeros = {name: torch.zeros(shape) for name, shape in problem.spec.shapes.items()}
        own = {name: tensor for name, tensor in state.items() if name in zeros and name not in problem.heads}
        padded = padded_state({**zeros, **own}, problem.spec, problem.new_spec, {})
        state |= {name: tensor for name, tensor in padded.items() if name not in problem.heads}
    twin = standalone_copy(problem.new_base)
    with torch.no_grad():
        for name, tensor in named_tensors(twin).items():
            if name in state:
                tensor.copy_(state[name])
    return twin


def _exact(difference: torch.Tensor, tuned: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    return torch.where(tuned == base, 0.0, difference)
