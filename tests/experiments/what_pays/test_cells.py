"""Cells: what is chosen is chosen on held-out samples, and what cannot be measured is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.compare_methods.setting import Training
from experiments.data import load_digits
from experiments.what_pays.budget import Budget, Pool, samples_of
from experiments.what_pays.cells import cell
from experiments.what_pays.fitting import RIDGES, best_fit, fitted
from experiments.what_pays.merging import mean_of, without_data
from experiments.what_pays.molecules import AtomNetworks
from experiments.what_pays.owners import shares_of_classes
from experiments.what_pays.problem import image_problem
from experiments.what_pays.setting import load_setting
from experiments.what_pays.task import KCAL
from experiments.what_pays.training import best_of_rates
from experiments.what_pays.tuning import tuned
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.front.gain import gain
from tests.experiments.what_pays.tiny import network, problem


def test_a_budget_larger_than_the_data_is_refused() -> None:
    pool = Pool("noise", torch.randn(40, 3), torch.zeros(40))
    with pytest.raises(DataError, match=r"at most 40 samples, which is all of noise, but got 41"):
        samples_of(pool, Budget(41))
    assert len(samples_of(pool, Budget(None))[0]) == len(samples_of(pool, Budget(40))[0]) == 40


def test_labels_where_there_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="ANI-1x has none, but got 10 labelled"):
        samples_of(Pool("ANI-1x", torch.randn(40, 3), None), Budget(10, labelled=True))


def test_networks_that_differ_in_one_layer_are_named() -> None:
    with pytest.raises(ArchitectureError, match=r"network 0 and network 1 differ: .*'0.weight'"):
        problem([network(0), network(1, width=5)])


def test_a_budget_is_first_made_of_samples_that_no_network_has_seen(tmp_path: Path) -> None:
    setting, data = replace(load_setting("digits"), training=Training(epochs=1)), load_digits()
    made = image_problem(setting, 0, data, tmp_path)
    unseen = data.train_images[-setting.held_out :]
    first = made.pool.inputs[: setting.held_out]
    assert torch.equal(first.flatten(1).sum(1).sort().values, unseen.flatten(1).sum(1).sort().values)
    assert not torch.equal(first, unseen)
    few, more = (made.given(Budget(size, labelled=True)) for size in (50, 200))
    assert (len(few.train[0]), len(few.folds), len(more.held_out[0]), len(more.train[0])) == (50, 5, 40, 160)
    for given in (*few.folds, more):
        held_out, train = (
            {tuple(row.tolist()) for row in part[0].flatten(1)} for part in (given.held_out, given.train)
        )
        assert not held_out & train
    kept_out = torch.cat([fold.held_out[0] for fold in few.folds])
    assert torch.equal(kept_out.sum((1, 2, 3)).sort().values, first[:50].sum((1, 2, 3)).sort().values)


def test_the_rate_that_is_best_on_held_out_samples_is_kept() -> None:
    made = problem([network(0), network(1)])
    given = made.given(Budget(None, labelled=True))
    right = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        right.weight.copy_(torch.tensor([[-9.0, 0, 0], [9.0, 0, 0]]))
    wrong = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        wrong.weight.copy_(-right.weight)
    kept = best_of_rates(made, given, (0.1, 0.2, 0.3), lambda rate: right if rate == 0.2 else wrong)
    assert (kept.rate, kept.network) == (0.2, right)


def test_a_start_that_tuning_makes_worse_is_kept() -> None:
    made = problem([network(0), network(1)])
    given = made.given(Budget(None, labelled=True))
    start = network(3)
    better = tuned(made, given, start, steps=40)
    before, after = (made.task.losses(each, given.held_out) for each in (start, better.network))
    assert gain(before, after).counts
    hurt = given.__class__((given.train[0], 1 - given.train[1]), given.held_out, given.batch_size)
    again = tuned(made, hurt, better.network, steps=40)
    assert again.network is better.network


def test_three_networks_are_learned_together_and_nothing_is_changed() -> None:
    networks = [network(seed) for seed in range(3)]
    before = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in networks]
    made = problem(networks)
    rows = {row["way"]: row for row in cell(made, Budget(20), {})}
    assert rows["learned together"]["steps"] == 4
    assert "learned" not in rows
    for each, state in zip(networks, before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in each.state_dict().items())


def test_nothing_is_tuned_without_rates() -> None:
    made = problem([network(0), network(1)])
    setting = replace(made.setting, spending=replace(made.setting.spending, rates=()))
    ways = {row["way"] for row in cell(replace(made, setting=setting), Budget(20), {})}
    assert {"matched midpoint", "learned", "activation matching"} <= ways
    assert not any("distilled" in way for way in ways)


def test_a_copy_with_its_units_in_another_order_merges_to_itself() -> None:
    first = network(0)
    second = network(0)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        second[0].weight.copy_(first[0].weight[order])
        second[0].bias.copy_(first[0].bias[order])
        second[2].weight.copy_(first[2].weight[:, order])
    merges = without_data(problem([first, second]))
    inputs = torch.randn(9, 3)
    assert torch.allclose(merges["weight matching"].network(inputs), first(inputs), atol=1e-5)
    assert not torch.allclose(merges["plain mean"].network(inputs), first(inputs), atol=1e-3)


def test_every_class_has_one_owner_with_most_of_it() -> None:
    labels = torch.arange(1000) % 10
    parts = shares_of_classes(labels, owners=2, share=0.98, seed=3)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    counts = torch.stack([torch.bincount(labels[part], minlength=10) for part in parts])
    assert counts.max(0).values.tolist() == [98] * 10
    assert (counts[0] == 98).sum() == 5
    alone = shares_of_classes(labels, owners=3, share=1.0, seed=0)
    assert not set(labels[alone[0]].tolist()) & set(labels[alone[1]].tolist())
    with pytest.raises(DataError, match=r"share from 0.5 to 1, but got 2 and 0.4"):
        shares_of_classes(labels, owners=2, share=0.4, seed=0)


def test_energies_are_those_of_the_atoms_that_are_there() -> None:
    torch.manual_seed(0)
    networks = [nn.Linear(3, 1), nn.Linear(3, 1)]
    molecules = torch.randn(2, 3, 4)
    molecules[:, :, 0] = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    energies = AtomNetworks(networks, places=(2, 1))(molecules)
    hydrogen, other = networks
    nothing = torch.zeros(1)
    first = torch.cat([hydrogen(molecules[0, 0, 1:]), nothing, other(molecules[0, 2, 1:])]) / 2
    second = torch.cat([*hydrogen(molecules[1, :2, 1:]), other(molecules[1, 2, 1:])]) / 3
    assert torch.allclose(energies, KCAL * torch.stack([first, second]), rtol=1e-5)


def test_units_are_measured_on_atoms_that_are_there_alone() -> None:
    seen: list[int] = []
    networks = [nn.Linear(3, 1), nn.Linear(3, 1)]
    for each in networks:
        each.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    molecules = torch.zeros(4, 3, 4)
    molecules[:3, 0, 0] = molecules[3, 2, 0] = 1.0
    AtomNetworks(networks, places=(2, 1))(molecules)
    assert seen == [3, 1]


def test_layers_that_are_fitted_are_closer_to_the_mean_of_outputs() -> None:
    networks = [network(seed, width=8) for seed in range(2)]
    made = problem(networks)
    rows = {row["way"]: row for row in cell(made, Budget(40), {})}
    assert "matched, layers fitted" not in rows
    given = made.given(Budget(None))
    plain = mean_of(networks)
    inputs = given.train[0]
    goal = sum(each(inputs) for each in networks) / 2
    fit = best_fit(made, given, plain)
    far = [float((each(inputs) - goal).detach().square().mean()) for each in (plain.network, fit.network)]
    assert fit.ridge in RIDGES
    assert far[1] < 0.5 * far[0]
    everything = fitted(made, torch.cat([inputs, given.held_out[0]]), plain, fit.ridge)
    apart = fitted(made, inputs, plain, fit.ridge)
    for found, expected in ((fit.network, everything), (fit.decided_on, apart)):
        torch.testing.assert_close(found(inputs), expected(inputs))
    assert not torch.allclose(everything(inputs), apart(inputs))
    made = replace(made, setting=replace(made.setting, fitted=True))
    rows = {row["way"]: row for row in cell(made, Budget(20), {})}
    assert {"matched, layers fitted", "learned, layers fitted"} <= set(rows)
    assert rows["distilled into learned, layers fitted"]["steps"] == 4
