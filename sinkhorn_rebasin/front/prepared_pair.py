"""A pair of networks that can be aligned, with all that this needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, ExampleInputs, Heads
from sinkhorn_rebasin.front.data import Fold
from sinkhorn_rebasin.front.judge import Judge
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.front.starts import start_methods
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.copying import evaluation_copy, inputs_like
from sinkhorn_rebasin.networks.counted_outputs import count_only, counted
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.rebasin import SinkhornRebasin


@dataclass(frozen=True)
class Prepared:
    """Hold a pair that can be aligned.

    Attributes:
        reference, target: the networks.
        spec, rescaling: their symmetries; no rescaling where scales are not learned.
        continuous: their continuous symmetries; with some, both networks are in canonical form.
        given: the networks as they were passed in, neither larger nor in canonical form.
        example_inputs: what the networks take; None where that is not known.
        train: training batches; None aligns by weights.
        start_data: training batches in memory, to match activations on.
        judge: decides what is better; None without held-out data.
        loss: of the caller's own.
        batch: a function from a batch to (inputs, labels).
        held_out: what is judged on, in words.
        notes: what the result should tell.
        heads: whose ignored layers the networks of the path have.
        folds: of few samples, each of which is kept out of one fit; the judge's are all of them then.
    """

    reference: nn.Module
    target: nn.Module
    spec: PermutationSpec
    rescaling: RescalingSpec | None
    continuous: ContinuousSpec
    given: tuple[nn.Module, nn.Module]
    example_inputs: ExampleInputs
    train: Any
    start_data: list[Any]
    judge: Judge | None
    loss: RebasinLoss | None
    batch: BatchAdapter | None
    held_out: str
    notes: tuple[str, ...]
    heads: Heads = "reference"
    folds: tuple[Fold, ...] = ()

    def start_methods(self, recipe: Recipe, seed: int) -> dict[str, Callable[[], Alignment]]:
        """Return the methods that find a start, by their names."""
        assert self.judge is not None
        return start_methods(self.judge, recipe, self.start_data, self.rescaling, self.continuous, seed)

    def rebasin_at(self, start: Alignment, seed: int) -> SinkhornRebasin:
        """Return a re-basin of the pair that begins at an alignment."""
        return SinkhornRebasin(
            *(self.reference, self.target, self.example_inputs),
            spec=self.spec,
            rescale=self.rescaling or False,
            symmetry=self.continuous,
            start=start,
            check=not self.continuous,
            heads=self.heads,
            generator=torch.Generator().manual_seed(seed),
        )

    @torch.no_grad()
    def function_change(self, rebasin: SinkhornRebasin) -> float | None:
        """Return the largest change of an output on the example inputs, relative to the largest output."""
        if self.example_inputs is None:
            return None
        runs = zip((self.given[1], self.target), ({}, rebasin.rebased_state(hard=True)), strict=True)
        outputs = []
        with untouched_randomness():
            for network, state in runs:
                twin = evaluation_copy(network)
                count_only(twin, self.spec.outputs)
                outputs.append(counted(twin, run_at(twin, state, inputs_like(self.example_inputs))))
        return float(largest_change(*outputs))
