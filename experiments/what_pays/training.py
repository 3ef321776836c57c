"""Permutations and scales that are learned, and the choice of a rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import sinkhorn_rebasin
from experiments.what_pays.merging import Merge, best_on_held_out, mean_of, options_of
from experiments.what_pays.problem import Given, Problem, Samples
from sinkhorn_rebasin import AlignmentResult, MidpointLoss, Recipe

CLOSING = 1 / 3
"""Part of the steps that settle scales at hard permutations, where units can be scaled."""


@dataclass(frozen=True)
class Trained:
    """Hold the best of several rates.

    Attributes:
        network: that held-out samples decided on.
        rate: it was trained at.
        seconds: of the processor, of one rate.
    """

    network: nn.Module
    rate: float
    seconds: float


def best_of_rates(
    problem: Problem, given: Given, rates: tuple[float, ...], train: Callable[[float], nn.Module]
) -> Trained:
    """Train at every rate, the lowest first, and keep the first network that none is visibly better than."""
    began = time.process_time()
    networks = {str(rate): train(rate) for rate in sorted(rates)}
    rate, network = best_on_held_out(problem, given, networks)
    return Trained(network, float(rate), (time.process_time() - began) / len(rates))


def learned(problem: Problem, given: Given) -> tuple[Trained, Merge]:
    """Learn permutations and scales, of all networks together where they are more than two.

    `sinkhorn_rebasin.align` parts few samples itself.

    Returns:
        The midpoint, and with it the networks it is the mean of.
    """
    rates = problem.setting.spending.learning_rates
    if given.folds:
        return _learned_by_folds(problem, given, rates)
    merges = {}

    def train(rate: float) -> nn.Module:
        if len(problem.networks) == 2:
            merges[rate] = merged(problem, aligned(problem, given, rate, given.batches(given.held_out)))
        else:
            merges[rate] = _learned_together(problem, given, rate)
        return merges[rate].network

    best = best_of_rates(problem, given, rates, train)
    return best, merges[best.rate]


def _learned_by_folds(problem: Problem, given: Given, rates: tuple[float, ...]) -> tuple[Trained, Merge]:
    """Learn a pair on few samples, and keep the rate whose midpoints are best on what they did not see."""
    began = time.process_time()
    results = {rate: aligned(problem, given, rate, None) for rate in sorted(rates)}
    best = min(results, key=lambda rate: midpoint_loss(results[rate]))
    merge = merged(problem, results[best])
    return Trained(merge.network, best, (time.process_time() - began) / len(rates)), merge


def midpoint_loss(result: AlignmentResult) -> float:
    """Return the loss on held-out samples halfway."""
    return math.inf if result.after is None else result.after.midpoint_loss


def recipe_of(problem: Problem, rate: float, temperatures: tuple[float, float], cycles: int) -> Recipe:
    """Return the recipe of one rate; it keeps what is best at the midpoint, the start included."""
    spending = problem.setting.spending
    closing = round(CLOSING * spending.steps) if problem.rescaling else 0
    return Recipe(
        steps=spending.steps - closing,
        closing_steps=closing,
        cycles=cycles,
        learning_rate=rate,
        scale_learning_rate=rate / 10,
        temperatures=temperatures,
        trials=1,
        keep="midpoint",
        points=3,
        evaluate_every=spending.evaluate_every,
    )


def aligned(problem: Problem, given: Given, rate: float, validation: list[Samples] | None) -> AlignmentResult:
    """Align two networks by training; without held-out batches all few samples are in folds."""
    loss = problem.task.loss
    return sinkhorn_rebasin.align(
        *problem.networks,
        given.batches(),
        validation,
        criterion=loss,
        loss=MidpointLoss(loss),
        recipe=recipe_of(problem, rate, (5 * rate, 2 * rate), cycles=2),
        trainer={"accelerator": "cpu"},
        **options_of(problem),  # type: ignore[arg-type]
    )


def merged(problem: Problem, result: AlignmentResult) -> Merge:
    """Return the midpoint of two aligned networks."""
    return Merge(result.merge(), [problem.networks[0], result.to_model()])


def _learned_together(problem: Problem, given: Given, rate: float) -> Merge:
    many = sinkhorn_rebasin.align_many(
        problem.networks,
        problem.spec,
        train=given.batches(),
        validation=given.batches(given.held_out),
        criterion=problem.task.loss,
        concentration=math.inf,
        example_inputs=problem.example,
        recipe=recipe_of(problem, rate, (10 * rate, rate), cycles=1),
        rescale=problem.rescaling is not None,
        trainer={"accelerator": "cpu"},
        progress=False,
        seed=problem.group,
    )
    return mean_of(problem.networks, many)
