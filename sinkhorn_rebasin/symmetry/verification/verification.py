"""Verify by numbers that permutations leave the output unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs, Permutations, State
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.networks.architecture import named_tensors, tied_names
from sinkhorn_rebasin.networks.constant_noise import ConstantNoise
from sinkhorn_rebasin.networks.copying import standalone_copy, training_copy
from sinkhorn_rebasin.networks.counted_outputs import count_only
from sinkhorn_rebasin.networks.double_precision import DoublePrecision, narrow_tolerance
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.observed_run import TensorReads
from sinkhorn_rebasin.networks.random_inputs import candidate_inputs, in_double_precision
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.symmetry.verification.claim import Claim
from sinkhorn_rebasin.symmetry.verification.conditions import CONDITIONS, Condition, inputs_of, integer_ranges
from sinkhorn_rebasin.symmetry.verification.perturbation import nonidentity_permutations


class _IncomparableError(SymmetryError):
    """Report an output with NaN, or nothing finite."""


def verify_symmetry(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    tolerance: float = 1e-9,
    trials: int = 4,
    generator: torch.Generator | None = None,
    outputs: Outputs = None,
) -> float:
    r"""Measure the output's change under random permutations.

    .. math:: \max_x \frac{\max |f_{\pi(\theta)}(x) - f_\theta(x)|}{v(x)}

    over ``trials`` random weights and inputs, where v is how much the output varies: the least of its largest value,
    its largest difference between two samples, and what permuting each tensor by itself changes. So a constant
    in the output hides nothing. The first are near those given: inputs of the example's shapes, types
    and spread, and weights moved a little, so that neutral values (zero biases, unit variances) hide nothing. The
    next are not: floats ten times as large, a tenth, and with the other sign; integers from the whole range of the
    tables they are looked up in; two and three times as many samples; gradients switched on; weights drawn from all
    of their tensor. Where a network does not run on such inputs, it is tried nearer to the example. It costs three
    forwards a trial, and a few to find ranges. Other shapes and other arguments are not tried, nor what training
    mode does with parameters that eval mode uses too.

    A network with kernels that float64 has not, or that overflows in it, is checked in its own type, to 1e-4 (or
    what half precision allows); one that random inputs break, on the example's own values. When the spec permutes
    parameters that eval mode does not use (auxiliary heads), the output in training mode is checked as well,
    without dropout.

    Args:
        model: the network; neither it nor its mode nor the random state is changed.
        spec: the claimed symmetries.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        tolerance: largest change that passes for rounding in float64.
        trials: how many weights, inputs and permutations to try; every group moves in each.
        generator: draws weights, inputs and permutations; without it they are the same in every call.
        outputs: which outputs count, as for :func:`discover_symmetry`; without it those that the spec was found for.

    Raises:
        SymmetryError: when the change exceeds ``tolerance``; it names the groups that fail alone. Also when the
            output is random, or holds NaN, or nothing finite, so that it proves nothing, or without a trial.
        ArchitectureError: when the network cannot be copied or does not run on the inputs.
        SpecError: when the spec is of another network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> verify_symmetry(net, spec, torch.randn(4, 3)) < 1e-12
        True
    """
    if trials < 1:
        raise SymmetryError(f"Expected at least one trial, to verify the symmetries with, but got {trials}.")
    check_supported(model)
    check_state(spec, named_tensors(model))
    spec.check_constants(named_tensors(model))
    if not spec.groups:
        return 0.0
    outputs = spec.counting(outputs).outputs
    generator = generator or torch.Generator("cpu").manual_seed(0)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        wide = in_double_precision(model)
        if wide is not None:
            count_only(wide, outputs)
            try:
                return _largest(
                    Claim(in_mode(wide, False), spec, tolerance, DoublePrecision),
                    example_inputs,
                    trials,
                    generator,
                )
            except (ArchitectureError, _IncomparableError):
                # Some kernels exist in narrow types only, and some masks overflow in wider ones.
                pass
        copy = in_mode(standalone_copy(model), False)
        count_only(copy, outputs)
        narrow = max(tolerance, narrow_tolerance(named_tensors(copy).values()))
        return _largest(Claim(copy, spec, narrow, nullcontext), example_inputs, trials, generator)


def _largest(check: Claim, example_inputs: ExampleInputs, trials: int, generator: torch.Generator) -> float:
    """Measure the largest change over all trials."""
    given = named_tensors(check.model)
    worst = 0.0
    first: tuple[State, ExampleInputs, set[str]] | None = None
    ranges: dict[int, int] | None = None
    for trial in range(trials):
        wanted = CONDITIONS[trial % len(CONDITIONS)]
        if wanted.integers and ranges is None:
            ranges = _ranges(check, example_inputs, given)
        condition, state, inputs, before, read = _first_output(
            check, wanted, given, example_inputs, ranges or {}, generator
        )
        check = replace(check, gradients=condition.gradients)
        first = first or (state, inputs, read)
        permutations = nonidentity_permutations(check.spec, generator)
        _check_ties(check, permute_state(state, check.spec, permutations))
        change = check.change(state, permutations, inputs, before)
        if change <= check.tolerance:
            worst = max(worst, change)
        elif not check.is_rounding(state, inputs, before, change, generator):
            raise check.blame(state, permutations, inputs, before, change)
    moved = {slot.tensor for slot in check.spec.slots} - check.spec.buffers
    if first is not None and not moved <= first[2]:
        worst = max(worst, _change_in_training(check, first[0], permutations, first[1]))
    return worst


def _ranges(check: Claim, example_inputs: ExampleInputs, given: State) -> dict[int, int]:
    """Find ranges of integer inputs with which it runs."""

    def runs(inputs: ExampleInputs) -> bool:
        try:
            return _incomparable(check.run(given, inputs)) is None
        except ArchitectureError:
            return False

    candidates = candidate_inputs(example_inputs, torch.Generator("cpu").manual_seed(0), check.is_wide)
    *_, example = candidates
    return integer_ranges(example, given, runs)


def _check_ties(check: Claim, moved: State) -> None:
    """Raise when tied tensors move differently."""
    for names in tied_names(check.model):
        known = [name for name in names if name in moved]
        for name in known[1:]:
            if not torch.equal(moved[known[0]], moved[name]):
                raise SymmetryError(
                    f"Expected {known[0]!r} and {name!r}, which are one tensor, to move alike but the spec moves "
                    f"them differently. Was it discovered on another network?",
                    groups=[
                        slot.group for slot in (*check.spec.slots_on(known[0]), *check.spec.slots_on(name))
                    ],
                )


def _first_output(
    check: Claim,
    wanted: Condition,
    given: State,
    example_inputs: ExampleInputs,
    ranges: Mapping[int, int],
    generator: torch.Generator,
) -> tuple[Condition, State, ExampleInputs, list[Tensor], set[str]]:
    """Find the first inputs with a comparable output."""
    failure: Exception = SymmetryError("")
    for condition in dict.fromkeys(wanted.simpler()):
        state = condition.weights(given, check.spec, generator)
        for inputs in inputs_of(condition, example_inputs, ranges, generator, check.is_wide):
            readers = TensorReads(state)
            try:
                with readers:
                    outputs = replace(check, gradients=condition.gradients).run(state, inputs)
            except ArchitectureError as error:
                failure = error
                continue
            reason = _incomparable(outputs)
            if reason is None:
                return condition, state, inputs, outputs, readers.names()
            failure = _IncomparableError(
                f"Expected an output that can be compared, to verify the symmetries with, but "
                f"{type(check.model).__name__} {reason}{_not_finite(state)}; skip the verification with "
                f"check=False."
            )
    raise failure


def _incomparable(outputs: list[Tensor]) -> str | None:
    """Say why outputs cannot be compared."""
    floating = [tensor for tensor in outputs if tensor.is_floating_point() or tensor.is_complex()]
    if any(bool(tensor.isnan().any()) for tensor in floating):
        return "returns NaN"
    if any(tensor.numel() > 0 and not bool(tensor.isfinite().any()) for tensor in floating):
        return "returns nothing finite"
    return None


def _not_finite(state: State) -> str:
    """Name the first tensor that is not finite."""
    for name, tensor in state.items():
        if (
            tensor.is_floating_point()
            and tensor.layout == torch.strided
            and not bool(tensor.isfinite().all())
        ):
            return f" (its {name!r} is not finite)"
    return ""


def _change_in_training(
    check: Claim, state: State, permutations: Permutations, inputs: ExampleInputs
) -> float:
    """Measure the change in training mode, where comparable."""

    def still() -> AbstractContextManager[Any]:
        return ConstantNoise(check.context)

    trained = Claim(training_copy(check.model), check.spec, check.tolerance, still)
    try:
        before = trained.run(state, inputs)
        repeatable = largest_change(before, trained.run(state, inputs)) <= check.tolerance
    except ArchitectureError:
        return 0.0
    if not repeatable or _incomparable(before):
        return 0.0
    change = trained.change(state, permutations, inputs, before)
    if not change <= check.tolerance:
        raise trained.blame(state, permutations, inputs, before, change)
    return change
