"""Few samples: each is kept out of one fit, and all of them tune what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from experiments.what_pays import cells, fitting, merging
from experiments.what_pays.budget import Budget
from experiments.what_pays.fitting import RIDGES, best_fit, fitted
from experiments.what_pays.merging import best_merge, with_data, without_data
from experiments.what_pays.problem import Given, Problem
from experiments.what_pays.training import Trained
from experiments.what_pays.tuning import tried, tuned, tuning
from sinkhorn_rebasin.front.gain import PartLosses
from tests.experiments.what_pays.tiny import network, problem


def test_few_samples_all_tune_for_as_long_as_folds_say() -> None:
    made = problem([network(0), network(1)])
    given, start = made.given(Budget(40, labelled=True)), network(0)
    found = tuned(made, given, start, steps=20)
    assert made.task.losses(found.network, made.test).mean < made.task.losses(start, made.test).mean
    # By hand: the mean loss of all samples, each by what was trained without its fold, after every evaluation.
    after: dict[int, float] = {}
    for fold in given.folds:
        for step, trained in tuning(made, fold.train, start, 0.1, 20):
            loss = nn.functional.cross_entropy(trained(fold.held_out[0]), fold.held_out[1], reduction="sum")
            after[step] = after.get(step, 0.0) + loss.item()
    stop = min(after, key=after.__getitem__)
    last = dict(tuned_states(made, given, start))[stop]
    assert all(torch.equal(tensor, last[name]) for name, tensor in found.network.state_dict().items())


def tuned_states(made: Problem, given: Given, start: nn.Module) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the weights after every evaluation of a tuning on all samples."""
    for step, trained in tuning(made, given.train, start, 0.1, 20):
        yield step, {name: tensor.clone() for name, tensor in trained.state_dict().items()}


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


def test_fits_are_chosen_and_tuned_where_they_saw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem([network(0), network(1)])
    given = made.given(Budget(40, labelled=True))
    merge = without_data(made)["plain mean"]
    compared: list[PartLosses] = []
    monkeypatch.setattr(fitting, "simplest", lambda losses: compared.extend(losses) or 1)
    fit = best_fit(made, given, merge)
    assert fit.ridge == RIDGES[1]
    # By hand: the loss of each ridge on what its fits did not see.
    losses = {}
    for ridge in RIDGES:
        fits = [fitted(made, fold.train[0], merge, ridge) for fold in given.folds]
        said = torch.cat([each(fold.held_out[0]) for each, fold in zip(fits, given.folds, strict=True)])
        wanted = torch.cat([fold.held_out[1] for fold in given.folds])
        losses[ridge] = nn.functional.cross_entropy(said, wanted).item()
        if ridge == fit.ridge:
            for found, expected in zip(fit.of_folds, fits, strict=True):
                torch.testing.assert_close(found(made.test[0]), expected(made.test[0]))
    assert [each.mean for each in compared] == pytest.approx(list(losses.values()), rel=1e-5)
    whole = fitted(made, made.pool.inputs, merge, fit.ridge)
    torch.testing.assert_close(fit.network(made.test[0]), whole(made.test[0]))
    starts = [network(seed + 5) for seed in range(len(given.folds))]
    found = tried(made, given, starts, 0.1, 20)
    after: dict[int, float] = {}
    for fold, start in zip(given.folds, starts, strict=True):
        for step, each in tuning(made, fold.train, start, 0.1, 20):
            loss = nn.functional.cross_entropy(each(fold.held_out[0]), fold.held_out[1], reduction="sum")
            after[step] = after.get(step, 0.0) + loss.item() / 40
    assert found.losses.mean == pytest.approx(min(after.values()), rel=1e-5)
    assert after[found.stop] == min(after.values())


def test_what_is_tuned_from_a_fit_begins_at_the_fits_of_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem([network(0), network(1)])
    made = replace(made, setting=replace(made.setting, fitted=True))
    starts: dict[nn.Module, object] = {}

    def noted(problem: Problem, given: Given, start: nn.Module, steps: int, of_folds: object = ()) -> Trained:
        starts[start] = of_folds
        return Trained(start, 0.1, 0.0)

    fits: list[fitting.Fit] = []
    monkeypatch.setattr(cells, "tuned", noted)
    monkeypatch.setattr(cells, "best_fit", lambda *given: fits.append(best_fit(*given)) or fits[-1])
    cells.cell(made, Budget(40, labelled=True), {})
    assert len(fits) == 2
    assert all(starts[fit.network] is fit.of_folds and len(fit.of_folds) == 5 for fit in fits)
