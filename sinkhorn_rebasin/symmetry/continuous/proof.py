"""Proof by random finite elements: turned, a network must compute what it computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, transform_state
from sinkhorn_rebasin.permutations.random_maps import random_map
from sinkhorn_rebasin.symmetry.continuous.neutral import batch_norms_among
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely
from sinkhorn_rebasin.symmetry.rescaling.trials import FARTHEST, NEAREST, Trials
from sinkhorn_rebasin.symmetry.verification.perturbation import scrambled

GROWTHS, FAR_TOLERANCE = (30.0, 3000.0), 1e-4
MOST_MIXED = 256
"""Units that one element mixes; permutations carry the claim to all others."""


@dataclass(frozen=True)
class Held:
    """Names of the tensors that are held at one, and at zero.

    Attributes:
        neutral: whether batch norms whose gain is held at one have statistics that change nothing.
    """

    ones: frozenset[str] = frozenset()
    zeros: frozenset[str] = frozenset()
    neutral: bool = False

    @classmethod
    def of(cls, symmetries: Sequence[ContinuousSymmetry]) -> Held:
        """What these symmetries ask for."""
        return cls(
            frozenset(name for one in symmetries for name in one.gains),
            frozenset(name for one in symmetries for name in one.shifts),
            neutral=True,
        )

    def __bool__(self) -> bool:
        return bool(self.ones or self.zeros)

    def __contains__(self, name: object) -> bool:
        return name in self.ones or name in self.zeros

    def at(self, state: State, network: nn.Module) -> State:
        """The weights with these tensors, under all names that they have, at their values."""
        values = {id(state[name]): torch.ones_like(state[name]) for name in self.ones}
        values |= {id(state[name]): torch.zeros_like(state[name]) for name in self.zeros}
        if self.neutral:
            for name, epsilon in batch_norms_among(network, self.ones).items():
                mean, variance = (state[f"{name}.{part}"] for part in ("running_mean", "running_var"))
                values[id(mean)] = torch.zeros_like(mean)
                values[id(variance)] = torch.full_like(variance, 1 - epsilon)
        return {name: values.get(id(tensor), tensor) for name, tensor in state.items()}


def change_of(trials: Trials, symmetries: Sequence[ContinuousSymmetry]) -> float:
    """Largest relative change of the output at random elements, with what must be one or zero held there.

    The change is also measured by how much the output varies. Units are made much larger than the network's:
    by common scales, which leave the function as it is; and by larger weights where it runs at them, to
    :data:`FAR_TOLERANCE`, for rounding grows with them.
    """
    near = [_change_once(trials, symmetries, side * _far(trials), strict=True) for side in (1, -1)]
    if not max(near) <= trials.tolerance:
        return max(near)
    for growth in GROWTHS:
        try:
            change = _change_once(trials, symmetries, 0.0, growth=growth)
        except ArchitectureError:
            continue  # nothing finite comes out so far away
        if not change <= max(FAR_TOLERANCE, trials.tolerance):
            return change
    return max(near)


def first_change(trials: Trials, symmetries: Sequence[ContinuousSymmetry]) -> float:
    """Relative change of the output at one random element, as a first look."""
    return _change_once(trials, symmetries, _far(trials))


def _change_once(
    trials: Trials,
    symmetries: Sequence[ContinuousSymmetry],
    log_scale: float,
    growth: float = 1.0,
    strict: bool = False,
) -> float:
    state = Held.of(symmetries).at(_grown(trials, growth), trials.network)
    maps = {one.group.name: random_element(trials, one, log_scale) for one in symmetries}
    (change,) = changes_of_outputs(trials, state, [moved(trials, state, symmetries, maps)], strict)
    return change


def random_element(trials: Trials, symmetry: ContinuousSymmetry, log_scale: float = 0.0) -> Tensor:
    """An element of a group, of which no block mixes more units than it takes to prove."""
    return random_map(symmetry, trials.generator, log_scale=log_scale, most_mixed=MOST_MIXED)


def _grown(trials: Trials, growth: float) -> State:
    """The weights of the network moved a little, with all but vectors this many times as large."""
    state = trials.weights()
    if growth == 1.0:
        return state
    larger = {
        id(state[name]): growth * state[name] for name in trials.spec.parameters if state[name].dim() > 1
    }
    return {name: larger.get(id(tensor), tensor) for name, tensor in state.items()}


def _far(trials: Trials) -> float:
    """A log-scale that reaches past the bounds of ReLU6 and its like, where they are no longer linear."""
    return NEAREST + (FARTHEST - NEAREST) * float(
        torch.rand((), generator=trials.generator, device=trials.generator.device)
    )


def moved(
    trials: Trials, state: State, symmetries: Sequence[ContinuousSymmetry], maps: Mapping[str, Tensor]
) -> State:
    """The weights carried along these maps, in the types that they had."""
    identity = identity_permutations(trials.spec)
    turned = transform_state(state, trials.spec, ContinuousSpec(tuple(symmetries)), maps, identity)
    return {name: tensor.to(state[name].dtype) for name, tensor in turned.items()}


def changes_of_outputs(
    trials: Trials, state: State, others: Sequence[State], strict: bool = False
) -> list[float]:
    """Relative change of the output at other weights, on new inputs; if strict, by how much the output varies."""
    network = trials.network
    inputs, before = draw_run(network, state, trials.example_inputs, trials.generator)
    outputs = [run_precisely(network, other, inputs) for other in others]
    changes = [largest_change(before, after) for after in outputs]
    if not strict or not any(changes):
        return changes
    try:
        apart = [run_precisely(network, scrambled(state, trials.spec), inputs)]
    except ArchitectureError:
        apart = []
    varied = [largest_change(before, after, apart) for after in outputs]
    return [max(change, other) if change else 0.0 for change, other in zip(changes, varied, strict=True)]
