"""A network in one representative of its continuous symmetries, as a network of the same class."""

from __future__ import annotations

import torch

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import Module, standalone_copy
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.balancing import balance_state
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, check_continuous
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING, check_rescaling
from sinkhorn_rebasin.permutations.shift_moves import center_state
from sinkhorn_rebasin.permutations.units_of_slots import with_ties
from sinkhorn_rebasin.symmetry.continuous.batch_norm import check_eval_mode, fold_batch_norms
from sinkhorn_rebasin.symmetry.continuous.function_proof import TOLERANCE, FunctionProof
from sinkhorn_rebasin.symmetry.continuous.gains_less_one import (
    as_gains,
    fold_factors,
    rescaling_of_factors,
)
from sinkhorn_rebasin.symmetry.continuous.shifts import (
    inner_shifts,
    norm_shifts,
    shifts_of_norms,
    silent_shifts,
    uncentered,
    unseen_shifts,
)
from sinkhorn_rebasin.symmetry.rescaling.discovery import discover_rescaling


def canonicalize(
    model: Module,
    spec: PermutationSpec,
    continuous: ContinuousSpec,
    example_inputs: ExampleInputs,
    *,
    rescaling: RescalingSpec | None = None,
) -> Module:
    r"""Copy a network into the form its continuous maps act on.

    The copy is of the same class and computes the same. In this order:

    1. gains of norms become one, by :func:`~sinkhorn_rebasin.permutations.gain_folding.fold_gains`, and those that
       are stored less one become zero;
    2. shifts of norms, and biases inside heads, move on to where they are read, or away where they cancel
       (keys), each only where this is proven by runs in float64, at these weights and at others;
    3. slots whose mean over the units nothing sees lose it, and so do readers of norms where this is proven;
    4. linear groups are balanced, by :func:`~sinkhorn_rebasin.permutations.balancing.balance_state`.

    A second call changes nothing but rounding. What is left of the symmetries are orthogonal maps, permutations
    and scales.

    Args:
        model: the network; it is not changed.
        spec, continuous: its symmetries.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        rescaling: its positive rescalings, which fold the gains; found when it is None.

    Note:
        - It speaks of the function in eval mode, and on outputs that the spec was found for.
        - Batch norms are folded into the layers before them, with their running statistics: a copy that is trained
          further normalizes by batches and is another function. Use it for inference.
        - Weights are computed in float64 and rounded once to the type they have.

    Raises:
        SymmetryError: when a gain cannot be folded, or a shift that must be zero is not moved; each is named. Also
            when the function would change.
        ArchitectureError: when the network does not run on the inputs, or not in float64, or is in training mode
            though its batch norms are to be folded.
        SpecError: when the symmetries are of another network.

    Example:
        >>> from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net, x = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 4)), torch.randn(6, 5)
        >>> spec = discover_symmetry(net, x)
        >>> signed = tuple((slot, -1 if slot.axes == (1,) else 1) for slot in spec.slots_of("0"))
        >>> continuous = ContinuousSpec((ContinuousSymmetry(spec["0"], "linear", signed),))
        >>> twin = canonicalize(net, spec, continuous, x)
        >>> torch.allclose(twin[0].weight @ twin[0].weight.T, twin[1].weight.T @ twin[1].weight, atol=1e-5)
        True

    Source: folding as in Ashkboos et al., "SliceGPT" (2024); balanced forms: Kempf and Ness (1979).
    """
    check_supported(model)
    check_state(spec, named_tensors(model))
    check_continuous(continuous)
    check_eval_mode(model, continuous)
    if rescaling is None:
        folds = any(symmetry.gains for symmetry in continuous.symmetries)
        rescaling = discover_rescaling(model, spec, example_inputs, signs=False) if folds else NO_RESCALING
    check_rescaling(rescaling)
    less_one = {name for symmetry in continuous.symmetries for name in symmetry.less_one}
    twin = standalone_copy(model)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        if less_one:
            rescaling = rescaling_of_factors(model, spec, continuous, less_one, example_inputs)
        held = {name for symmetry in continuous.symmetries for name in symmetry.gains} | less_one
        proof = FunctionProof(model, spec, example_inputs, held)
        moved = _canonical_state(proof, continuous, rescaling)
        _check_shifts(moved, continuous)
        change = proof.change(proof.state, moved)
        if not change <= TOLERANCE:
            raise SymmetryError(
                f"Expected a form of {type(model).__name__} that computes the same but its output changes by "
                f"{change:.1e}. Were the symmetries, {', '.join(continuous.names)}, discovered on another network?",
                groups=continuous.names,
            )
        for name, tensor in named_tensors(twin).items():
            if name in spec.shapes:
                tensor.copy_(moved[name])
    return twin


def _canonical_state(proof: FunctionProof, continuous: ContinuousSpec, rescaling: RescalingSpec) -> State:
    """Fold, move what is proven to move, center and balance."""
    spec = proof.spec
    state = fold_batch_norms(proof, continuous)
    state = with_ties(fold_factors(state, spec, continuous, rescaling), spec)
    for moves in (norm_shifts(spec, as_gains(continuous), rescaling), unseen_shifts(spec, continuous)):
        state = proof.moved(moves, state)
    for side in (-1, 1):
        state = proof.moved(silent_shifts(spec, continuous, side, state), state)
    state = proof.moved(inner_shifts(spec, continuous), state)
    proof.held |= {slot.tensor for slot in shifts_of_norms(spec, as_gains(continuous), rescaling)}
    state = proof.moved(uncentered(spec, continuous), center_state(state, spec, continuous))
    return balance_state(state, spec, continuous)


def _check_shifts(state: State, continuous: ContinuousSpec) -> None:
    """Raise SymmetryError, naming it, when a shift that must be zero first is not."""
    for symmetry in continuous.symmetries:
        for name in symmetry.shifts:
            if bool(state[name].any()):
                raise SymmetryError(
                    f"Expected the shift {name!r}, which does not turn with group {symmetry.group.name!r}, at zero "
                    f"but it could not be moved into the biases of what reads it: set it to zero, give its readers "
                    f"biases, or leave the group out.",
                    groups=(symmetry.group.name,),
                )
