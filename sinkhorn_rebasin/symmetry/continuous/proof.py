"""Proof by random finite elements: turned, a network must compute what it computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry, transform_state
from sinkhorn_rebasin.symmetry.continuous.elements import random_element
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials
from sinkhorn_rebasin.symmetry.verification.perturbation import scrambled

TRIALS = 2


@dataclass(frozen=True)
class Held:
    """Names of the tensors that are held at one, and at zero."""

    ones: frozenset[str] = frozenset()
    zeros: frozenset[str] = frozenset()

    @classmethod
    def of(cls, symmetries: Sequence[ContinuousSymmetry]) -> Held:
        """What these symmetries ask for."""
        return cls(
            frozenset(name for one in symmetries for name in one.gains),
            frozenset(name for one in symmetries for name in one.shifts),
        )

    def __bool__(self) -> bool:
        return bool(self.ones or self.zeros)

    def __contains__(self, name: object) -> bool:
        return name in self.ones or name in self.zeros

    def at(self, state: State) -> State:
        """The weights with these tensors, under all names that they have, at their values."""
        values = {id(state[name]): torch.ones_like(state[name]) for name in self.ones}
        values |= {id(state[name]): torch.zeros_like(state[name]) for name in self.zeros}
        return {name: values.get(id(tensor), tensor) for name, tensor in state.items()}


def change_of(trials: Trials, symmetries: Sequence[ContinuousSymmetry], count: int = TRIALS) -> float:
    """Largest relative change of the output at random elements, with what must be one or zero held there."""
    held = Held.of(symmetries)
    worst = 0.0
    for _ in range(count):
        state = held.at(trials.weights())
        maps = {one.group.name: random_element(one, trials.generator) for one in symmetries}
        worst = max(worst, *changes_of_outputs(trials, state, [moved(trials, state, symmetries, maps)]))
    return worst


def moved(
    trials: Trials, state: State, symmetries: Sequence[ContinuousSymmetry], maps: Mapping[str, Tensor]
) -> State:
    """The weights carried along these maps, in the types that they had."""
    identity = identity_permutations(trials.spec)
    turned = transform_state(state, trials.spec, ContinuousSpec(tuple(symmetries)), maps, identity)
    return {name: tensor.to(state[name].dtype) for name, tensor in turned.items()}


def changes_of_outputs(trials: Trials, state: State, others: Sequence[State]) -> list[float]:
    """Relative change of the output at other weights, on new inputs, by how much the output varies."""
    network = trials.network
    inputs, before = draw_run(network, state, trials.example_inputs, trials.generator)
    outputs = [run_precisely(network, other, inputs) for other in others]
    try:
        apart = [run_precisely(network, scrambled(state, trials.spec), inputs)]
    except ArchitectureError:
        apart = []
    return [
        max(change, largest_change(before, after, apart))
        if (change := largest_change(before, after))
        else 0.0
        for after in outputs
    ]
