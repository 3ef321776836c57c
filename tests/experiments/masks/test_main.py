from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from experiments.compare_methods.setting import Training
from experiments.masks.__main__ import QUESTION, shared
from experiments.masks.methods import Problem, learned_on_mask
from experiments.masks.setting import Setting
from experiments.masks.tickets import magnitude_mask, prunable, retrained, sparsity_of, ticket, train
from experiments.models.family import batches_of
from experiments.reporting.json_files import read_json, write_json
from tests.experiments.tiny_run import answered

TINY = """
title: tiny
data: digits
model: mlp
arguments: {inputs: 64, widths: [8]}
training: {epochs: 2, learning_rate: 0.1, batch_size: 50}
train_images: 300
held_out: 50
networks: 2
match_images: 100
recipe: {steps: 4, cycles: 1, trials: 1, closing_steps: 0, evaluate_every: 2, points: 3}
mask_steps: 4
"""


@pytest.fixture
def setting() -> Setting:
    arguments = {"inputs": 64, "widths": [8]}
    training = Training(epochs=2, learning_rate=0.1, batch_size=50)
    return Setting(
        title="tiny",
        data="digits",
        model="mlp",
        arguments=arguments,
        training=training,
        train_images=300,
        rounds=2,
    )


def test_every_mask_is_trained_under_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    rows = {row["mask"]: row for row in answered(QUESTION, TINY, tmp_path)["pairs"][0]["rows"]}
    assert {row["sparsity"] for name, row in rows.items() if name != "dense"} == {
        rows["naive mask"]["sparsity"]
    }
    assert rows["naive mask"]["sparsity"] == pytest.approx(0.9, abs=0.01)
    assert rows["receiver's own mask"]["shared"] == 1 > rows["weight matching"]["shared"]
    (finished,) = (tmp_path / "finished").glob("tiny-*-0.json")
    write_json(finished, {**read_json(finished), "setting": "kept"})
    assert answered(QUESTION, TINY, tmp_path)["pairs"][0]["setting"] == "kept"


def test_a_pruned_network_keeps_its_mask_and_starts_from_its_early_weights(setting: Setting) -> None:
    data, _, tests = setting.load(Path())
    found = ticket(setting, data, tests, seed=0)
    assert sparsity_of(found.mask) == pytest.approx(0.9, abs=0.01)
    network = retrained(found, setting, data)
    for name, module in prunable(network).items():
        assert bool((module.get_parameter("weight")[~found.mask[f"{name}.weight"]] == 0).all())
    everything = {name: torch.ones_like(part) for name, part in found.mask.items()}
    again = retrained(found.with_mask(everything), setting, data)
    assert all(
        torch.equal(tensor, found.dense.state_dict()[name]) for name, tensor in again.state_dict().items()
    )


def test_training_in_two_parts_sees_what_training_at_once_sees(setting: Setting) -> None:
    data, _, _ = setting.load(Path())
    seen: list[list[torch.Tensor]] = []
    for spans in ([(0, 2)], [(0, 1), (1, 2)]):
        network, inputs = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), list[torch.Tensor]()
        network.register_forward_pre_hook(lambda _, images, inputs=inputs: inputs.append(images[0]))
        for since, until in spans:
            train(network, setting, data, 3, since, until)
        seen.append(inputs)
    assert len(seen[0]) == 12
    assert all(torch.equal(*both) for both in zip(*seen, strict=True))


def test_later_rounds_leave_out_what_earlier_ones_left_out() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    network[0].weight.data = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    before = {"0.weight": torch.tensor([[False, True], [True, True]])}
    mask = magnitude_mask(network, before, 0.5)
    assert mask["0.weight"].tolist() == [[False, True], [True, False]]
    assert shared(mask, before) == 1.0


def test_a_mask_of_permuted_units_is_learned_back(setting: Setting) -> None:
    data, held, tests = setting.load(Path())
    found = ticket(setting, data, tests, seed=0)
    spec = sr.discover_symmetry(found.dense, data.train_images[:2])
    moved = sr.Alignment(sr.random_permutations(spec, generator=torch.Generator().manual_seed(1)), spec)
    problem = Problem.of(found.with_mask(dict(moved.carry(found.mask, "mask"))), found, data, held, setting)
    truth = moved.invert()
    unchanged = learned_on_mask(problem, spec, truth)
    assert shared(dict(unchanged.carry(problem.source.mask, "mask")), found.mask) > 0.6
    start = sr.Alignment(sr.identity_permutations(spec), spec)
    learned = learned_on_mask(problem, spec, start)
    assert shared(dict(learned.carry(problem.source.mask, "mask")), found.mask) > shared(
        problem.source.mask, found.mask
    )
    assert batches_of(torch.zeros(0), torch.zeros(0)) == []
