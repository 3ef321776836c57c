from __future__ import annotations

import copy
import dataclasses
import logging
import random
import signal
import warnings
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError, RebasinError, RecipeError
from tests.front import pairs
from tests.front.pairs import SHORT, aligned, batches, loader, short, trained, untrained


def test_a_trained_pair_ends_lower_than_it_starts() -> None:
    result = aligned()
    held_out = batches()[-2:]
    start = result.starts[result.start]
    assert result.after.losses.mean() <= start.losses.mean()
    assert result.after.barrier <= start.barrier
    assert result.after.barrier < result.before.barrier / 2
    # An evaluation of its own agrees: the parameters that are reported are those that are there.
    again = sr.evaluate_path((result.to_model(), trained(0)), held_out, points=5)
    assert again.barrier == pytest.approx(result.after.barrier, abs=1e-6)
    naive = sr.evaluate_path((trained(1), trained(0)), held_out, points=5)
    assert torch.equal(naive.losses, result.before.losses)


def test_the_aligned_network_computes_what_it_did() -> None:
    result = aligned()
    x = torch.randn(64, 2)
    torch.testing.assert_close(result.to_model()(x), trained(1)(x), atol=1e-4, rtol=1e-4)
    assert result.function_change < 1e-4
    assert not torch.equal(result.to_model()[0].weight, trained(1)[0].weight)


def test_the_start_is_the_best_of_those_tried() -> None:
    result = aligned()
    assert set(result.starts) == set(SHORT.starts)
    assert result.start == min(result.starts, key=lambda name: float(result.starts[name].losses.mean()))
    assert [entry["stage"] for entry in result.history] == ["soft"] * 5 + ["closing"] * 2
    assert [entry["step"] for entry in result.history] == [0, 10, 20, 30, 40, 40, 50]
    assert result.steps == {"soft": 40, "closing": 10}


def test_networks_of_one_start_begin_as_they_are_where_that_is_best() -> None:
    owners = pairs.owners_of_one_start()[:2]
    recipe = dataclasses.replace(SHORT, starts=("weight_matching", "as_they_are"), steps=0, closing_steps=0)
    result = short(*owners, validation=batches(), recipe=recipe)
    assert result.start == "as_they_are"
    assert float(result.starts["weight_matching"].losses.mean() - result.before.losses.mean()) > 0.01
    torch.testing.assert_close(result.after.losses, result.before.losses)
    for name, tensor in result.to_model().state_dict().items():
        assert torch.equal(tensor, owners[1].state_dict()[name])


def test_a_planted_permutation_is_recovered_without_data() -> None:
    reference, x = trained(0), torch.randn(4, 2)
    spec = sr.discover_symmetry(reference, x)
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(3))
    target = copy.deepcopy(reference)
    target.load_state_dict(sr.permute_state(reference.state_dict(), spec, planted))
    result = sr.align(reference, target, example_inputs=x)
    for name, tensor in result.to_model().state_dict().items():
        torch.testing.assert_close(tensor, reference.state_dict()[name], atol=1e-5, rtol=0)
    assert result.steps == {}
    assert result.before is None


def test_planted_scales_are_recovered_without_data() -> None:
    reference, x = trained(0), torch.randn(4, 2)
    spec = sr.discover_symmetry(reference, x)
    rescaling = sr.discover_rescaling(reference, spec, x)
    generator = torch.Generator().manual_seed(3)
    scales = {n: 0.7 * torch.randn(s, generator=generator) for n, s in rescaling.shapes(spec).items()}
    planted = sr.random_permutations(spec, generator=generator)
    moved = sr.rescale_state(reference.state_dict(), spec, rescaling, scales)
    target = copy.deepcopy(reference)
    target.load_state_dict(sr.permute_state(moved, spec, planted))
    exact = sr.align(reference, target, example_inputs=x)
    alone = sr.align(reference, target, example_inputs=x, rescale=False)
    distances = [
        sum(
            float((t - reference.state_dict()[n]).square().sum())
            for n, t in r.to_model().state_dict().items()
        )
        for r in (exact, alone)
    ]
    assert distances[0] < 1e-2 * distances[1]
    torch.testing.assert_close(exact.to_model()(x), target(x), atol=1e-4, rtol=1e-4)


def test_without_data_held_out_batches_judge_all_the_same() -> None:
    result = sr.align(trained(0), trained(1), validation=batches()[-2:], recipe=SHORT)
    path = result.to_model(), trained(0)
    assert torch.equal(result.after.losses, sr.evaluate_path(path, batches()[-2:], points=5).losses)
    assert not torch.equal(result.after.losses, result.before.losses)
    assert result.steps == {}


class Interrupts(lightning.Callback):
    """Presses Ctrl-C before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def test_an_interrupted_call_returns_the_best_so_far() -> None:
    handler = signal.getsignal(signal.SIGINT)
    result = short(trainer={"accelerator": "cpu", "callbacks": Interrupts(25)})
    assert signal.getsignal(signal.SIGINT) is handler
    assert result.interrupted
    assert "interrupted" in str(result)
    assert result.steps == {"soft": 25}
    seen = [entry["midpoint_loss"] for entry in result.history]
    assert len(seen) == 3
    assert result.after.midpoint_loss in seen
    assert result.after.losses.mean() <= result.starts[result.start].losses.mean()


def test_nothing_of_the_caller_changes() -> None:
    networks = trained(0), trained(1)
    networks[1].train()
    data = loader(generator=torch.Generator().manual_seed(5))
    before = [{n: t.clone() for n, t in network.state_dict().items()} for network in networks]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    order, level = data.generator.get_state(), logging.getLogger("lightning.pytorch").level
    filters = list(warnings.filters)
    options: dict[str, Any] = {"accelerator": "cpu", "callbacks": []}
    short(train=data, validation=batches()[:2], trainer=options)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(t, state[n]) for n, t in network.state_dict().items())
        assert all((p.requires_grad and p.grad is None) or True for p in network.parameters())
    assert networks[1].training
    assert not networks[0].training
    networks[1].eval()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert torch.equal(data.generator.get_state(), order)
    assert logging.getLogger("lightning.pytorch").level == level
    assert warnings.filters == filters
    assert options == {"accelerator": "cpu", "callbacks": []}


def test_a_seed_decides_everything() -> None:
    torch.manual_seed(77)
    first, other = short(train=loader()), short(train=loader(), seed=1)
    torch.manual_seed(78)
    again = short(train=loader())
    assert torch.equal(first.after.losses, again.after.losses)
    assert first.history == again.history
    assert first.history != other.history


def test_a_loss_of_ones_own_is_trained_and_judges_unlabelled_batches() -> None:
    def closeness(rebasin: Any, batch: Any) -> Tensor:
        return (rebasin(batch["input"], at=0.5) - rebasin(batch["input"], at=1.0)).square().mean()

    data = [{"input": points} for points, _ in batches(count=1000)]
    result = short(train=data[:20], validation=data[20:], loss=closeness)
    assert result.before is None
    losses = [entry["loss"] for entry in result.history]
    assert min(losses) < losses[0]
    held_out = torch.stack([closeness(result.rebasin, batch) for batch in data[20:]]).mean()
    assert float(held_out.detach()) == pytest.approx(min(losses), rel=1e-5)
    assert "at best" in str(result)


def test_losses_of_the_package_take_labelled_batches() -> None:
    result = short(loss=sr.WeightDistance("l2"))
    assert result.after.losses.mean() <= result.starts[result.start].losses.mean()


def test_an_adapter_reads_any_batch() -> None:
    data = [{"a": points, "b": labels} for points, labels in batches()]
    result = short(train=data, batch=lambda found: (found["a"], found["b"]))
    assert result.history == aligned().history


class Named(nn.Module):
    """Takes inputs and labels by name, and returns its own loss, as networks of Hugging Face do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        logits = self.network(points)
        loss = None if labels is None else 3 * F.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def test_dictionaries_with_labels_are_judged_by_the_networks_own_loss() -> None:
    data = [{"points": points, "labels": labels} for points, labels in batches()]
    result = short(Named(trained(0)), Named(trained(1)), train=data)
    plain = aligned()
    torch.testing.assert_close(result.before.losses, 3 * plain.before.losses)
    assert result.after.barrier < result.before.barrier / 2


def test_batch_norm_is_measured_anew_before_it_is_judged() -> None:
    def normalized(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for points, labels in batches(80):
            optimizer.zero_grad()
            F.cross_entropy(network(points), labels).backward()
            optimizer.step()
        return network.eval()

    reference, target = normalized(0), normalized(1)
    result = short(reference, target)
    merged, held_out = result.merge(0.5), batches()[-2:]
    losses = torch.stack([F.cross_entropy(merged(points), labels) for points, labels in held_out])
    assert float(losses.mean().detach()) == pytest.approx(result.after.midpoint_loss, rel=1e-4)


def test_alignment_for_repair_learns_permutations_alone() -> None:
    recipe = dataclasses.replace(SHORT, steps=10, cycles=1)
    result = short(repair=True, recipe=recipe)
    assert not result.rebasin.log_scales
    assert "REPAIR" in str(result)
    merged, held_out = result.merge(0.5), batches()[-2:]
    losses = torch.stack([F.cross_entropy(merged(points), labels) for points, labels in held_out])
    assert float(losses.mean().detach()) == pytest.approx(result.after.midpoint_loss, rel=1e-3)


def test_a_budget_in_seconds_shortens_the_fits() -> None:
    around = short().seconds  # starts, evaluations and few steps, which take longer on a machine that is busy
    recipe = sr.Recipe(steps=100_000, closing_steps=50_000, points=5, seconds=2)
    result = short(recipe=recipe)
    assert result.seconds < 2 + max(2, 2 * around)
    assert 0 < result.steps["soft"] < 10_000
    assert result.steps["closing"] > 0


def test_options_reach_the_trainer() -> None:
    seen: list[Any] = []

    class Looks(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
            seen.append(trainer.precision)

    short(trainer={"accelerator": "cpu", "precision": "bf16-mixed", "callbacks": [Looks()]})
    assert seen == ["bf16-mixed"] * 2


def test_a_given_spec_is_used() -> None:
    spec = sr.discover_symmetry(trained(0), torch.randn(2, 2)).without("2")
    result = short(spec=spec)
    assert list(result.rebasin.scores) == ["0"]


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"train": []}, DataError, "empty"),
    ({"train": iter(batches())}, DataError, "one-shot"),
    ({"train": 3}, DataError, "int"),
    ({"train": [torch.ones(3, 2)] * 3}, DataError, "labels"),
    ({"train": batches(400)}, DataError, "validation="),
    ({"validation": []}, DataError, "validation"),
    ({"recipe": {"steps": 3}}, RecipeError, "dict"),
    ({"loss": 3}, LossError, "int"),
    ({"loss": sr.WeightDistance(), "repair": True}, LossError, "both"),
    ({"trainer": {"max_steps": 3}}, RebasinError, "max_steps"),
    ({"train": None}, ArchitectureError, "example_inputs="),
    ({"train": None, "repair": True}, DataError, "train="),
]


@pytest.mark.parametrize(("options", "error", "told"), WRONG, ids=[told for *_, told in WRONG])
def test_what_is_wrong_is_named(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        short(**options)


def test_networks_that_differ_are_named_by_their_tensor() -> None:
    with pytest.raises(ArchitectureError, match=r"0\.weight"):
        short(trained(0), untrained(0, width=9))
