"""Networks that are tuned: to a part of the samples, or, of few, to all but one fold at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from experiments.what_pays.problem import Given, Problem, Samples
from experiments.what_pays.training import Trained, best_of_rates
from sinkhorn_rebasin.front.gain import PartLosses, gain, simplest, together
from sinkhorn_rebasin.networks.copying import standalone_copy


def tuned(
    problem: Problem, given: Given, start: nn.Module, steps: int, of_folds: Sequence[nn.Module] = ()
) -> Trained:
    """Tune a network to labels, or to what the networks say together.

    Args:
        problem: with the task and the rates.
        given: the samples.
        start: what is tuned.
        steps: after which rates are zero.
        of_folds: starts that were made without one fold each; the one start where there are none.
    """
    if given.folds:
        return tuned_by_folds(problem, given, start, steps, of_folds)
    rates = problem.setting.spending.rates
    return best_of_rates(problem, given, rates, lambda rate: _tuned(problem, given, start, rate, steps))


def _tuned(problem: Problem, given: Given, start: nn.Module, rate: float, steps: int) -> nn.Module:
    """Train a copy with Adam, whose rate falls to zero.

    The start is kept unless the best on held-out samples gains more than chance would.
    """
    before = problem.task.losses(start, given.held_out)
    best, kept = before, start
    for _, network in tuning(problem, given.train, start, rate, steps):
        now = problem.task.losses(network, given.held_out)
        if now.mean < best.mean:
            best, kept = now, standalone_copy(network).eval()
    return kept if gain(before, best).counts else start


def tuning(
    problem: Problem, samples: Samples, start: nn.Module, rate: float, steps: int
) -> Iterator[tuple[int, nn.Module]]:
    """Train a copy with Adam, whose rate falls to zero; yield it where it may be judged, with its step."""
    network = standalone_copy(start).train().requires_grad_(True)
    adam = torch.optim.Adam(network.parameters(), rate)
    draw = torch.Generator().manual_seed(problem.group)
    (inputs, targets), spending = samples, problem.setting.spending
    size = min(spending.batch_size, len(inputs))
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        picked = torch.randint(len(inputs), (size,), generator=draw)
        loss = problem.task.loss(network(inputs[picked]), targets[picked])
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % spending.evaluate_every == 0 or step + 1 == steps:
            yield step + 1, network.eval()
            network.train()


@dataclass(frozen=True)
class Tried:
    """Hold how a rate did where samples were kept out.

    Attributes:
        stop: the step after which it did best; 0 where it gains no more than chance would.
        losses: there, one sample a part.
    """

    stop: int
    losses: PartLosses


def tuned_by_folds(
    problem: Problem, given: Given, start: nn.Module, steps: int, of_folds: Sequence[nn.Module] = ()
) -> Trained:
    """Tune to all samples, at the rate and for the steps that did best where each was kept out.

    A start that was made of the samples looks better on them than it is, and so is kept more often.

    Args:
        problem: with the task and the rates.
        given: the samples, in folds.
        start: what is tuned.
        steps: after which rates are zero.
        of_folds: starts that were made without one fold each; the one start where there are none.
    """
    began = time.process_time()
    rates = sorted(problem.setting.spending.rates)
    starts = of_folds or [start] * len(given.folds)
    tries = [tried(problem, given, starts, rate, steps) for rate in rates]
    best = simplest([each.losses for each in tries])
    network = start
    if tries[best].stop:
        steps_of = tuning(problem, given.train, start, rates[best], steps)
        network = standalone_copy(next(each for step, each in steps_of if step >= tries[best].stop)).eval()
    return Trained(network, rates[best], (time.process_time() - began) / len(rates))


def tried(problem: Problem, given: Given, starts: Sequence[nn.Module], rate: float, steps: int) -> Tried:
    """Tune without one fold after the other, and judge on it."""
    each = list(zip(given.folds, starts, strict=True))
    before = together([problem.task.losses(start, fold.held_out) for fold, start in each])
    after: dict[int, list[PartLosses]] = {}
    for fold, start in each:
        for step, network in tuning(problem, fold.train, start, rate, steps):
            after.setdefault(step, []).append(problem.task.losses(network, fold.held_out))
    losses = {step: together(parts) for step, parts in after.items()}
    best = min(losses, key=lambda step: losses[step].mean)
    return Tried(best, losses[best]) if gain(before, losses[best]).counts else Tried(0, before)
