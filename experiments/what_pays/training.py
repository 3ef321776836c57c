"""Ways that take steps: permutations and scales are learned, or a network is tuned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import sinkhorn_rebasin
from experiments.what_pays.merging import Merge, best_on_held_out, mean_of, options_of
from experiments.what_pays.problem import Given, Problem
from sinkhorn_rebasin import MidpointLoss, Recipe
from sinkhorn_rebasin.front.gain import gain
from sinkhorn_rebasin.networks.copying import standalone_copy

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

    Returns:
        The midpoint, and with it the networks it is the mean of.
    """
    rates = problem.setting.spending.learning_rates
    learn = _learned_pair if len(problem.networks) == 2 else _learned_together
    merges = {}

    def train(rate: float) -> nn.Module:
        merges[rate] = learn(problem, given, rate)
        return merges[rate].network

    best = best_of_rates(problem, given, rates, train)
    return best, merges[best.rate]


def tuned(problem: Problem, given: Given, start: nn.Module, steps: int) -> Trained:
    """Tune a network to labels, or to what the networks say together."""
    rates = problem.setting.spending.rates
    return best_of_rates(problem, given, rates, lambda rate: _tuned(problem, given, start, rate, steps))


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


def _learned_pair(problem: Problem, given: Given, rate: float) -> Merge:
    loss = problem.task.loss
    result = sinkhorn_rebasin.align(
        *problem.networks,
        given.batches(),
        given.batches(given.held_out),
        criterion=loss,
        loss=MidpointLoss(loss),
        recipe=recipe_of(problem, rate, (5 * rate, 2 * rate), cycles=2),
        trainer={"accelerator": "cpu"},
        **options_of(problem),  # type: ignore[arg-type]
    )
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


def _tuned(problem: Problem, given: Given, start: nn.Module, rate: float, steps: int) -> nn.Module:
    """Train a copy with Adam, whose rate falls to zero.

    The start is kept unless the best on held-out samples gains more than chance would.
    """
    network = standalone_copy(start).train().requires_grad_(True)
    adam = torch.optim.Adam(network.parameters(), rate)
    draw = torch.Generator().manual_seed(problem.group)
    inputs, targets = given.train
    before = problem.task.losses(start, given.held_out)
    best, kept = before, start
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        picked = torch.randint(len(inputs), (min(given.batch_size, len(inputs)),), generator=draw)
        loss = problem.task.loss(network(inputs[picked]), targets[picked])
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % problem.setting.spending.evaluate_every == 0 or step + 1 == steps:
            now = problem.task.losses(network.eval(), given.held_out)
            if now.mean < best.mean:
                best, kept = now, standalone_copy(network).eval()
            network.train()
    return kept if gain(before, best).counts else start
