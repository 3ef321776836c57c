"""The cells of the table: every way of one budget, measured on the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.what_pays.budget import Budget
from experiments.what_pays.fitting import best_fit
from experiments.what_pays.merging import Merge, best_merge, best_on_held_out, with_data, without_data
from experiments.what_pays.problem import Given, Problem
from experiments.what_pays.training import Trained, learned
from experiments.what_pays.tuning import tuned

Row = dict[str, Any]


def cell(problem: Problem, budget: Budget, merges: dict[str, Merge]) -> list[Row]:
    """Measure every way of one budget.

    Args:
        problem: with the networks.
        budget: what may be looked at.
        merges: those that look at no data; filled where it is empty.
    """
    began = time.process_time()
    if not merges:
        merges.update(without_data(problem))
    seconds = time.process_time() - began
    if budget.size == 0:
        return _without_data(problem, merges, seconds)
    given = problem.given(budget)
    began = time.process_time()
    found = with_data(problem, given, merges)
    seconds = time.process_time() - began
    row = partial(_row, problem, str(budget))
    rows = []
    if not budget.labelled:
        rows += [row(way, merge.network, seconds=seconds) for way, merge in found.items()]
    return [*rows, *_with_steps(problem, budget, given, merges | found, merges, row)]


def _with_steps(
    problem: Problem,
    budget: Budget,
    given: Given,
    merges: dict[str, Merge],
    blind: dict[str, Merge],
    row: Callable[..., Row],
) -> list[Row]:
    """Measure the ways that take steps: learned, and tuned from every start."""
    steps = problem.setting.spending.steps
    verb = "fine-tuned from" if budget.labelled else "distilled into"
    midpoint, merge = learned(problem, given)
    name = "learned" if len(problem.networks) == 2 else "learned together"
    members = {f"network {number}": network for number, network in enumerate(problem.networks)}
    member = best_on_held_out(problem, given, members)
    best = best_merge(problem, given, merges, blind)
    matched = best, merges[best].network
    rows = [
        row("matched midpoint", matched[1], start=best),
        row(name, midpoint.network, **_spent(midpoint, steps)),
    ]
    if problem.setting.fitted:
        for way, found in {"matched": merges[matched[0]], name: merge}.items():
            rows += _fitted(problem, given, way, found, row)
    if not problem.setting.spending.rates:
        return rows
    starts: dict[str, tuple[str, nn.Module, int, int]] = {
        "a member": (*member, steps, 0),
        "a member, twice the steps": (*member, 2 * steps, 0),
        "the matched midpoint": (*matched, steps, 0),
        "the learned midpoint": (name, midpoint.network, steps, steps),
    }
    for start, (choice, network, further, before) in starts.items():
        trained = tuned(problem, given, network, further)
        spent = _spent(trained, before + further)
        spent["seconds"] += midpoint.seconds if before else 0.0
        rows.append(row(f"{verb} {start}", trained.network, start=choice, **spent))
    return rows


def _fitted(problem: Problem, given: Given, way: str, merge: Merge, row: Callable[..., Row]) -> Iterator[Row]:
    """Measure a merge whose layers are fitted, and what is distilled into it."""
    began, steps = time.process_time(), problem.setting.spending.steps
    fit = best_fit(problem, given, merge)
    seconds = time.process_time() - began
    yield row(f"{way}, layers fitted", fit.network, ridge=fit.ridge, seconds=seconds)
    if problem.setting.spending.rates:
        trained = tuned(problem, given, fit.decided_on, steps, fit.of_folds)
        spent = _spent(trained, steps)
        spent["seconds"] += seconds
        yield row(f"distilled into {way}, layers fitted", trained.network, ridge=fit.ridge, **spent)


def _without_data(problem: Problem, merges: dict[str, Merge], seconds: float) -> list[Row]:
    """Measure the networks, what they say together, and what is merged without data.

    The best member is the best on the test, which is the strictest rival.
    """
    row = partial(_row, problem, str(Budget(0)))
    members = [row("member", network) for network in problem.networks]
    numbers = [name for name in ("error", "accuracy") if name in members[0]]
    mean = {name: sum(each[name] for each in members) / len(members) for name in numbers}
    best = min(members, key=lambda each: each["error"])
    return [
        {**members[0], "way": "a member, on average", **mean},
        {**best, "way": "best member"},
        {**row("mean of outputs", partial(_together, problem)), "cost": len(members)},
        *(row(way, merge.network, seconds=seconds) for way, merge in merges.items()),
    ]


@torch.no_grad()
def _together(problem: Problem, inputs: Tensor) -> Tensor:
    task = problem.task
    return task.combined(task.said_together(problem.networks, inputs))


def _spent(trained: Trained, steps: int) -> dict[str, Any]:
    return {"steps": steps, "rate": trained.rate, "seconds": trained.seconds}


def _row(problem: Problem, budget: str, way: str, network: Callable[[Tensor], Tensor], **told: Any) -> Row:
    """Return the figures of one way on the test."""
    figures = problem.task.measured(network, problem.test)
    return {"way": way, "budget": budget, "cost": 1, **figures, **told}
