"""Proof by numbers: permuted at random, the network must compute what it computed before."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, Permutations, State
from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.networks.execution import run_at, untouched_randomness
from sinkhorn_rebasin.networks.frozen import named_tensors
from sinkhorn_rebasin.networks.outputs import largest_change
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    identity_permutations,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.symmetry.precision import DoublePrecision
from sinkhorn_rebasin.symmetry.random_inputs import random_inputs

ROUNDING_OF_NARROW_TYPES = 1e-4


def verify_symmetry(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    tolerance: float = 1e-9,
    trials: int = 2,
    generator: torch.Generator | None = None,
) -> float:
    r"""Largest relative change of the output under random permutations of all groups, in float64.

    .. math:: \max_x \frac{\max |f_{\pi(\theta)}(x) - f_\theta(x)|}{\max |f_\theta(x)|}

    over ``trials`` random inputs of the example's shapes and types, at weights moved a little away from the
    model's own, so that neutral values (zero biases, unit variances) hide nothing. A network with kernels that
    float64 has not is checked in its own type, to 1e-4.

    Raises:
        SymmetryError: when the change exceeds ``tolerance``; it names the groups that fail alone.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> verify_symmetry(net, spec, torch.randn(4, 3)) < 1e-12
        True
    """
    spec.check_state(named_tensors(model))
    if not spec.groups:
        return 0.0
    generator = generator or torch.Generator().manual_seed(0)
    wide = copy.deepcopy(model).double().eval()
    with torch.no_grad(), untouched_randomness():
        if _runs(wide, random_inputs(example_inputs, torch.Generator().manual_seed(0))):
            with DoublePrecision():
                return _worst(wide, spec, example_inputs, tolerance, trials, generator, torch.float64)
        # Some kernels exist in narrow types only: the check is then as sharp as the network's own type allows.
        own = copy.deepcopy(model).eval()
        narrow = max(tolerance, ROUNDING_OF_NARROW_TYPES)
        return _worst(own, spec, example_inputs, narrow, trials, generator, None)


def _runs(model: nn.Module, inputs: ExampleInputs) -> bool:
    try:
        with DoublePrecision():
            run_at(model, {}, inputs)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _worst(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    tolerance: float,
    trials: int,
    generator: torch.Generator,
    dtype: torch.dtype | None,
) -> float:
    """Largest change over several inputs and permutations; floating inputs in a type, or in their own."""
    state = _displaced(named_tensors(model), spec, generator)
    worst = 0.0
    for _ in range(trials):
        inputs = random_inputs(example_inputs, generator, dtype)
        permutations = random_permutations(spec, generator=generator)
        before = run_at(model, state, inputs)
        change = _change(model, state, spec, permutations, inputs, before)
        if not change <= tolerance:
            raise SymmetryError(_blame(model, state, spec, permutations, inputs, before, change, tolerance))
        worst = max(worst, change)
    return worst


def _change(
    model: nn.Module,
    state: State,
    spec: PermutationSpec,
    permutations: Permutations,
    inputs: ExampleInputs,
    before: Any,
) -> float:
    return largest_change(before, run_at(model, permute_state(state, spec, permutations), inputs))


def _blame(
    model: nn.Module,
    state: State,
    spec: PermutationSpec,
    permutations: Permutations,
    inputs: ExampleInputs,
    before: Any,
    change: float,
    tolerance: float,
) -> str:
    if largest_change(before, run_at(model, state, inputs)) > tolerance:
        return (
            f"Expected a network that returns the same output for the same input but {type(model).__name__} "
            f"does not, even in eval mode: switch its randomness off."
        )
    guilty = []
    for group in spec.groups:
        alone = {**identity_permutations(spec), group.name: permutations[group.name]}
        alone_change = _change(model, state, spec, alone, inputs, before)
        if not alone_change <= tolerance:
            guilty.append(f"{group.name!r} ({alone_change:.1e})")
    names = ", ".join(guilty) or "none of the groups alone, only together"
    return (
        f"Expected permutations to leave the output of {type(model).__name__} unchanged (to "
        f"{tolerance:.0e}) but got a relative change of {change:.1e}; failing groups: {names}. "
        f"Freeze them with spec.without(...)."
    )


def _displaced(state: Mapping[str, Tensor], spec: PermutationSpec, generator: torch.Generator) -> State:
    """Weights moved a little, variances kept positive; tied tensors stay tied."""
    moved: dict[int, Tensor] = {}
    for name, tensor in state.items():
        if name in spec.shapes and id(tensor) not in moved:
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)
            moved[id(tensor)] = tensor * (1 + 0.1 * noise) + 0.01 * noise
    return {name: moved.get(id(tensor), tensor) for name, tensor in state.items()}
