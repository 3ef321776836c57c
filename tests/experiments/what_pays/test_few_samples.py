"""Few samples: each is kept out of one fit, and all of them tune what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from experiments.what_pays import merging
from experiments.what_pays.budget import Budget
from experiments.what_pays.merging import best_merge, with_data, without_data
from experiments.what_pays.problem import Given, Problem
from experiments.what_pays.tuning import tuned, tuning
from tests.experiments.what_pays.tiny import network, problem


def test_few_samples_all_tune_for_as_long_as_folds_say() -> None:
    made = problem([network(0), network(1)])
    given, start = made.given(Budget(40, labelled=True)), network(0)
    found = tuned(made, given, start, steps=20)
    assert made.task.losses(found.network, made.test).mean < made.task.losses(start, made.test).mean
    # By hand: the mean loss of all samples, each by what was trained without its fold, after every evaluation.
    after: dict[int, float] = {}
    for fold in given.folds:
        for step, tried in tuning(made, fold.train, start, 0.1, 20):
            loss = nn.functional.cross_entropy(tried(fold.held_out[0]), fold.held_out[1], reduction="sum")
            after[step] = after.get(step, 0.0) + loss.item()
    stop = min(after, key=after.__getitem__)
    last = dict(tuned_states(made, given, start))[stop]
    assert all(torch.equal(tensor, last[name]) for name, tensor in found.network.state_dict().items())


def tuned_states(made: Problem, given: Given, start: nn.Module) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the weights after every evaluation of a tuning on all samples."""
    for step, tried in tuning(made, given.train, start, 0.1, 20):
        yield step, {name: tensor.clone() for name, tensor in tried.state_dict().items()}


def test_a_start_that_no_fold_makes_better_is_kept() -> None:
    made = problem([network(0), network(1)])
    start = tuned(made, made.given(Budget(40, labelled=True)), network(0), steps=200).network
    given = made.given(Budget(40, labelled=True))
    wrong = tuple(replace(fold, train=(fold.train[0], 1 - fold.train[1])) for fold in given.folds)
    assert tuned(made, replace(given, folds=wrong), start, steps=20).network is start


def test_folds_choose_the_merge_that_is_best_on_what_it_did_not_see() -> None:
    first = network(0)
    order = torch.tensor([2, 0, 3, 1])
    twin = network(0)
    with torch.no_grad():
        twin[0].weight.copy_(first[0].weight[order])
        twin[0].bias.copy_(first[0].bias[order])
        twin[2].weight.copy_(first[2].weight[:, order])
    made = problem([first, twin])
    with torch.no_grad():  # labels that the first network gives, which a plain mean does not
        labels = first(made.pool.inputs).argmax(1)
    made = replace(made, pool=replace(made.pool, labels=labels))
    blind = without_data(made)
    given = made.given(Budget(40, labelled=True))
    merges = blind | with_data(made, given, blind)
    named = best_merge(made, given, merges, blind)
    assert made.task.measured(merges[named].network, given.train)["accuracy"] == 1.0


def test_merges_are_chosen_without_what_they_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem([network(0), network(1)])
    given, blind = made.given(Budget(40, labelled=True)), without_data(made)
    looked_at: list[Given] = []
    monkeypatch.setattr(merging, "with_data", lambda problem, given, blind: looked_at.append(given) or {})
    assert best_merge(made, given, blind, blind) in blind
    assert len(looked_at) == 5
    assert all(seen is fold for seen, fold in zip(looked_at, given.folds, strict=True))


def test_three_networks_keep_a_part_of_few_samples_out() -> None:
    given = problem([network(seed) for seed in range(3)]).given(Budget(20))
    assert (given.folds, len(given.held_out[0]), len(given.train[0])) == ((), 10, 10)
