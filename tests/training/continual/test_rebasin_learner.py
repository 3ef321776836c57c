"""The published method as a learner: what it optimises, how, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from sinkhorn_rebasin import permute_state
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.permutations import identity_permutations
from sinkhorn_rebasin.training.continual import RebasinLearner
from tests.rebasin.rebasin_problems import TiedLayers
from tests.training import fitting
from tests.training.continual.tasks import EXAMPLE, net, tasks, trainers


class Watch(lightning.Callback):
    """Notes what every step changes."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.network: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: RebasinLearner, *_: object) -> None:  # type: ignore[override]
        self.before = {name: value.detach().clone() for name, value in pl_module.residual_tensors().items()}

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: RebasinLearner, *_: object) -> None:  # type: ignore[override]
        now = pl_module.residual_tensors()
        decayed = {name: value * (1 - 0.05 * 0.1) for name, value in self.before.items()}
        self.steps.append(
            max(float((now[name].detach() - value).abs().max()) for name, value in decayed.items())
        )
        self.network.append({k: v.clone() for k, v in pl_module.network.state_dict().items()})

    def on_train_end(self, trainer: lightning.Trainer, pl_module: RebasinLearner) -> None:  # type: ignore[override]
        if pl_module.task:
            spec, hard = pl_module.rebasin.spec, pl_module.rebasin.hard_permutations()
            state = pl_module.network.state_dict()
            moved = permute_state(state, spec, hard)
            residual = pl_module.residual_tensors()
            self.ends.append({k: 0.8 * state[k] + 0.2 * moved[k] + residual[k].detach() for k in residual})


def test_two_tasks_step_by_step(tmp_path: Path) -> None:
    learner, watch = RebasinLearner(net(), 2, EXAMPLE), Watch()
    first, second = tasks(2)
    trainers(tmp_path, watch)().fit(learner, first)
    start = {name: value.clone() for name, value in learner.network.state_dict().items()}
    watch.steps.clear()
    watch.network.clear()
    trainers(tmp_path, watch)().fit(learner, second)
    # The network stays where it is until the task ends, then moves to the published sum.
    assert all(torch.equal(state[name], start[name]) for state in watch.network for name in start)
    for name, value in watch.ends[0].items():
        torch.testing.assert_close(learner.network.state_dict()[name], value)
    # A step of the residual is at most its learning rate times the largest gradient entry.
    assert 0 < max(watch.steps) <= 0.05 * 0.001 * 1.001
    scores = learner.rebasin.scores["0"]
    assert (scores - torch.eye(12)).abs().max() > 0.1


def test_optimisers_are_those_published(tmp_path: Path) -> None:
    learner = RebasinLearner(net(), 2, EXAMPLE)
    (plain,) = learner.configure_optimizers()
    assert isinstance(plain, torch.optim.SGD)
    learner.learned += 1
    scores, residual = learner.configure_optimizers()
    assert isinstance(scores, torch.optim.AdamW)
    assert isinstance(residual, torch.optim.SGD)
    assert scores.param_groups[0]["lr"] == 0.1
    assert (residual.param_groups[0]["lr"], residual.param_groups[0]["weight_decay"]) == (0.05, 0.1)
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (scores, residual)]
    assert held[0] == {id(p) for p in learner.rebasin.scores.values()}
    assert held[1] == {id(p) for p in learner.residual.parameters()}


def test_a_task_begins_at_the_identity_with_a_small_residual() -> None:
    learner = RebasinLearner(net(), 2, EXAMPLE)
    with torch.no_grad():
        learner.rebasin.scores["0"].normal_()
        learner.network[0].weight.add_(1.0)
    learner.begin_task()
    for name, indices in identity_permutations(learner.rebasin.spec).items():
        assert torch.equal(learner.rebasin.hard_permutations()[name], indices)
    for name, value in learner.network.state_dict().items():
        assert torch.equal(learner.rebasin.reference_state()[name], value)
        assert torch.equal(learner.rebasin.target_state()[name], value)
    spread = torch.cat([value.flatten() for value in learner.residual_tensors().values()]).std().item()
    assert spread == pytest.approx(1e-4, rel=0.5)


def test_tied_layers_stay_tied(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TiedLayers()
        network.out = nn.Linear(6, 3)
    learner = RebasinLearner(network, 2, EXAMPLE)
    for task in tasks(2):
        trainers(tmp_path)().fit(learner, task)
    assert learner.network.second.weight is learner.network.third.weight
    for name in ("second.weight", "third.weight"):
        assert torch.equal(learner.network.state_dict()[name], learner.network.second.weight)


def test_batch_norm_statistics_are_those_of_the_memory(tmp_path: Path) -> None:
    learner = RebasinLearner(net(norm=True), 2, EXAMPLE)
    for task in tasks(2):
        trainers(tmp_path)().fit(learner, task)
    assert learner.memory is not None
    points = torch.cat([part.inputs for part in learner.memory.everything()])
    values = learner.network[0](points)
    torch.testing.assert_close(learner.network[1].running_mean, values.mean(dim=0))
    torch.testing.assert_close(learner.network[1].running_var, values.var(dim=0))


def test_a_network_without_hidden_units_is_an_error() -> None:
    with pytest.raises(ArchitectureError, match="permutable hidden units"):
        RebasinLearner(nn.Linear(4, 3), 2, EXAMPLE)


def test_frozen_parameters_stay_and_so_do_their_units(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    network[0].requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learner = RebasinLearner(network, 2, EXAMPLE, scores_lr=1.0)
    assert learner.rebasin.spec.names == ["2"]
    for task in tasks(2):
        trainers(tmp_path)().fit(learner, task)
    found = learner.network.state_dict()
    assert all(torch.equal(found[name], before[name]) for name in ("0.weight", "0.bias"))
    assert not torch.equal(found["2.weight"], before["2.weight"])


def test_a_scaled_loss_is_clipped_as_one_that_is_not(tmp_path: Path) -> None:
    found = []
    for scale in (None, 2.0**12):
        learner = RebasinLearner(net(), 2, EXAMPLE, residual_clip=0.05)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for task in tasks(2):
                scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
                plugin = MixedPrecision("bf16-mixed" if scale is None else "16-mixed", "cpu", scaler)
                fitting.trainer(tmp_path, plugins=[plugin]).fit(learner, task)
        found.append(torch.cat([value.detach().flatten() for value in learner.residual_tensors().values()]))
    assert found[0].abs().max() > 0.01
    torch.testing.assert_close(found[1], found[0], rtol=0.1, atol=0.003)
