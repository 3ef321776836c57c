"""Find the exact rescalings of any network from numbers alone: no rule names an activation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs, State
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning, SymmetryError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.counted_outputs import count_only
from sinkhorn_rebasin.networks.double_precision import ROUNDING_OF_NARROW_TYPES, narrow_tolerance
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.random_inputs import in_double_precision
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, ScaleSymmetry, Slot
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.rescaling import check_rescaling
from sinkhorn_rebasin.permutations.slots import merged_parts
from sinkhorn_rebasin.symmetry.rescaling.equations import MOST_DRAWS, Equations
from sinkhorn_rebasin.symmetry.rescaling.independence import independent
from sinkhorn_rebasin.symmetry.rescaling.integer_kernel import integer_kernel
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely
from sinkhorn_rebasin.symmetry.rescaling.sign_flips import odd_exponents, sign_candidates
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

TOLERANCE = 1e-9
Found = TypeVar("Found")


def discover_rescaling(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    signs: bool = True,
    tolerance: float = TOLERANCE,
    generator: torch.Generator | None = None,
    outputs: Outputs = None,
    turned: Collection[str] = (),
) -> RescalingSpec:
    r"""Find scales and signs that keep the function.

    If multiplying slot k of unit i by :math:`s_i^{e_k}` changes nothing for any s > 0, then at s = 1

    .. math:: \sum_k e_k\, \Big\langle \frac{\partial f}{\partial \theta_k[i]}, \theta_k[i] \Big\rangle = 0

    for all units, inputs and outputs. The integer vectors e that solve these equations, in float64 at random
    inputs and weights moved a little, are then verified by a run at random s. So ReLU, leaky ReLU, norm scales and
    the two sides of a product (queries and keys) are found, and GELU is not, with no rule for any of them.

    Flips of sign (tanh) are looked for among the sets of a group's slots. Of up to eight slots all sets are compared;
    of up to 64, those that solve the equations of :class:`SignEquations`.
    A unit of a recurrent layer is negated with the rows of its candidate, with all columns that read it, gates
    included, and with its trained initial state. A state that is an input, or a buffer, keeps the sign.

    It speaks of the function in eval mode; where a weight has no part in that (heads used in training only), in
    training mode as well. Statistics of norm layers are left alone, for they are estimated again. What cancels in
    the output (the bias of keys) is never scaled, nor is a block of heads by what its inner units can do. A group
    with a weight that no draw reaches (an expert that no input is sent to) is left alone, with a
    :class:`RebasinWarning`: nothing is known of it.

    Args:
        model: the network; neither it nor its mode nor the random state is changed.
        spec: its permutation symmetries: rescalings are found for their groups.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        signs: look for flips of sign as well. It costs up to 2^(K/2 + 1) forwards for a group of K slots, up to
            eight; for more, some K log K forwards and a few backward passes.
        tolerance: largest relative change of the output that passes for rounding in float64. A network that does
            not run in float64 is asked in float32, to 1e-4.
        generator: draws weights, inputs and scales; without it they are the same in every call.
        outputs: which outputs count, as for :func:`discover_symmetry`; without it those that the spec was found for.
        turned: groups whose flips are not looked for, because maps move them: of these only the flips that follow
            from their scales are told. The search in a residual stream costs the most.

    Raises:
        ArchitectureError: when the network does not run on the inputs, has no derivatives, or cannot be copied.
        SpecError: when the spec is of another network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> print(discover_rescaling(net, spec, torch.randn(4, 3)))
        0 (positive): 0.weight[0] +1, 0.bias[0] +1, 2.weight[1] -1

    Source: scaling of ReLU units, Neyshabur et al. (2015); the equations are the conservation laws of Kunin et al.,
    "Neural mechanics" (2021), read from right to left.
    """
    check_supported(model)
    check_state(spec, named_tensors(model))
    spec = spec.counting(outputs)
    generator = generator or torch.Generator("cpu").manual_seed(0)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        rescaling, unreached = in_precision(
            lambda trials: search_rescalings(trials, signs, turned=turned),
            *(model, spec, example_inputs, tolerance, generator),
        )
    _warn_of(unreached)
    return rescaling


def search_rescalings(
    trials: Trials, signs: bool, groups: Collection[str] | None = None, turned: Collection[str] = ()
) -> tuple[RescalingSpec, Mapping[str, Sequence[str]]]:
    """Find rescalings of these groups or all, and the tensors that no draw reached."""
    equations = Equations(trials, groups)
    matrices = equations.gathered()
    unreached = equations.unreached()
    live = {
        group: [equations.slots[group][place] for place in np.flatnonzero(trials.reached(matrix))]
        for group, matrix in matrices.items()
        if group not in unreached
    }
    generators = _positive(trials, matrices, live)
    if signs:
        generators += _signs(trials, live, generators, turned)
    return RescalingSpec(tuple(equations.slots), tuple(generators)), unreached


def requested_rescaling(
    model: nn.Module,
    spec: PermutationSpec,
    rescale: bool | RescalingSpec,
    example_inputs: ExampleInputs,
    *,
    turned: Collection[str] = (),
    check: bool = True,
) -> RescalingSpec:
    """Return the rescalings given, or find those asked for.

    Note:
        Flips of turned groups are not looked for.
        Given rescalings are verified when there are example inputs.

    Raises:
        SymmetryError: when a given rescaling changes the function; its generators are named.
        SpecError: when it is of another network.
    """
    if not isinstance(rescale, bool):
        check_rescaling(rescale)
        if check and example_inputs is not None:
            _verify(model, spec, rescale, example_inputs)
        return rescale
    if not rescale:
        return RescalingSpec(groups=())
    if example_inputs is None:
        raise ArchitectureError("Expected example inputs, to discover the rescalings with, but got none.")
    return discover_rescaling(model, spec, example_inputs, turned=turned)


def in_precision(
    search: Callable[[Trials], Found],
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    tolerance: float,
    generator: torch.Generator,
) -> Found:
    """Search in float64, or in the network's own type."""
    wide, rounding = in_double_precision(model), narrow_tolerance(model.parameters())
    if wide is not None:
        count_only(wide, spec.outputs)
        try:
            return search(Trials(in_mode(wide, False), spec, example_inputs, tolerance, generator))
        except ArchitectureError:
            if rounding > ROUNDING_OF_NARROW_TYPES:
                raise
    if rounding > ROUNDING_OF_NARROW_TYPES:
        raise ArchitectureError(
            f"Expected a network in float32 or float64, to find its rescalings with, but {type(model).__name__} has "
            f"weights in half precision and its device no float64: move it to the CPU."
        )
    copy = in_mode(standalone_copy(model), False)
    count_only(copy, spec.outputs)
    return search(Trials(copy, spec, example_inputs, max(tolerance, rounding), generator))


def _verify(
    model: nn.Module, spec: PermutationSpec, rescaling: RescalingSpec, example_inputs: ExampleInputs
) -> None:
    """Raise when a given rescaling changes the function."""
    rescaling.shapes(spec)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        generator = torch.Generator("cpu").manual_seed(0)
        held = in_precision(
            lambda trials: trials.verified(rescaling.generators),
            model,
            spec,
            example_inputs,
            TOLERANCE,
            generator,
        )
    wrong = [str(one) for one in rescaling.generators if one not in held]
    if wrong:
        raise SymmetryError(
            f"Expected rescalings that leave the output of {type(model).__name__} unchanged but got "
            f"{'; '.join(wrong)}. Were they discovered on another network? Discover them with rescale=True."
        )


def _warn_of(unreached: Mapping[str, Sequence[str]]) -> None:
    """Warn of groups with weights that no draw reached."""
    for group, tensors in unreached.items():
        warnings.warn(
            f"Expected every weight of group {group!r} to take part in the output on inputs like the example's, but "
            f"{', '.join(map(repr, tensors))} did in none of {MOST_DRAWS} draws: the group is not rescaled. Pass "
            f"example inputs that reach them.",
            RebasinWarning,
            stacklevel=3,
        )


def _positive(
    trials: Trials, matrices: Mapping[str, NDArray[np.float64]], live: Mapping[str, Sequence[Slot]]
) -> list[ScaleSymmetry]:
    """Find generators that hold at random positive scales."""
    candidates = []
    for group, slots in live.items():
        matrix = matrices[group][:, trials.reached(matrices[group])]
        for exponents in integer_kernel(matrix, trials.rounding):
            candidates.append(_generator(trials.spec, group, slots, exponents))
    if trials.less_one and not _move(candidates, trials.spec, trials.less_one):
        return []  # what was asked for is in none of them
    return independent(trials.spec, trials.verified(candidates))


def _move(candidates: Sequence[ScaleSymmetry], spec: PermutationSpec, tensors: Collection[str]) -> bool:
    """Tell whether any candidate scales one of these tensors."""
    first = {name: names[0] for names in spec.tied for name in names}
    asked = {first.get(name, name) for name in tensors}
    return any(
        first.get(slot.tensor, slot.tensor) in asked for one in candidates for slot, _ in one.exponents
    )


def _signs(
    trials: Trials,
    live: Mapping[str, Sequence[Slot]],
    positive: Sequence[ScaleSymmetry],
    turned: Collection[str],
) -> list[ScaleSymmetry]:
    """Find flips of sign that hold at random signs."""
    state = trials.weights()
    drawn = [
        (network, draw_run(network, state, trials.example_inputs, trials.generator)[0])
        for network in trials.networks
    ]

    def outputs(flipped: State) -> list[Tensor]:
        return [tensor for network, inputs in drawn for tensor in run_precisely(network, flipped, inputs)]

    candidates = []
    for group, slots in live.items():
        known = [one for one in positive if one.group == group]
        flips = (
            odd_exponents(slots, known)
            if group in turned
            else sign_candidates(
                trials.spec, group, slots, known, state, outputs, trials.tolerance, trials.generator
            )
        )
        for chosen in flips:
            candidates.append(_generator(trials.spec, group, slots, chosen, "sign"))
    return independent(trials.spec, trials.verified(candidates))


def _generator(
    spec: PermutationSpec,
    group: str,
    slots: Sequence[Slot],
    exponents: NDArray[np.int64],
    kind: str = "positive",
) -> ScaleSymmetry:
    """Build a generator, with positive exponents of biases.

    Note:
        - Slots whose parts agree are whole.
        - Without biases, rows of weights have positive exponents.
    """
    pairs = [(slot, int(e)) for slot, e in zip(slots, exponents, strict=True)]
    biases = sum(e for slot, e in pairs if len(spec.shapes[slot.tensor]) == 1)
    rows = sum(e for slot, e in pairs if slot.axes[0] == 0)
    sign = -1 if (biases or rows) < 0 else 1
    merged = merged_parts(spec.slots_of(group), {slot: sign * e for slot, e in pairs})
    return ScaleSymmetry(group, "sign" if kind == "sign" else "positive", merged)
