"""MC-SGD against its formula written out anew, and where its search starts and ends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sinkhorn_rebasin.training.continual import ModeConnectivitySGD
from tests.training import fitting
from tests.training.continual.tasks import net, tasks, trainers, weights_of

POINTS, LABELS = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
Weights = dict[str, Tensor]


class Watched(ModeConnectivitySGD):
    """Keeps both ends of the lines."""

    def end_task(self) -> None:
        self.seen = 0
        self.before, self.found = dict(self.previous.state_dict()), weights_of(self)
        super().end_task()

    def connecting_loss(self, *arguments: Any) -> Tensor:
        self.seen += 1
        return super().connecting_loss(*arguments)


def after_two_tasks(folder: Path, **options: object) -> Watched:
    learner = Watched(net(norm=bool(options.pop("norm", False))), 2, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for task in tasks(2):
            trainers(folder)().fit(learner, task)
    return learner


def on_the_way(start: Weights, end: Weights, position: float) -> Weights:
    return {name: (1 - position) * start[name] + position * end[name] for name in end}


@pytest.mark.parametrize("heads", [False, True])
def test_the_loss_is_that_of_both_lines(tmp_path: Path, heads: bool) -> None:
    learner = ModeConnectivitySGD(
        net(6 if heads else 3), 2, classes=[[0, 1, 2], [3, 4, 5]] if heads else None
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainers(tmp_path)().fit(learner, tasks(1)[0])
    before = weights_of(learner)
    found = {name: 1.3 * value for name, value in before.items()}
    with torch.no_grad():
        learner.network[2].weight.mul_(-0.5)
    memory = learner.memory
    assert memory is not None
    state = memory.generator.get_state()
    replay, position = memory.draw(8), float(torch.rand((), generator=memory.generator))
    memory.generator.set_state(state)

    def outputs(start: Weights, points: Tensor) -> Tensor:
        shown: Tensor = functional_call(
            learner.network, on_the_way(start, weights_of(learner), position), points
        )
        return shown

    expected = F.cross_entropy(outputs(before, replay.inputs)[:, :3], replay.labels)
    expected = expected + F.cross_entropy(outputs(found, POINTS)[:, -3:], LABELS)
    loss = learner.connecting_loss(before, found, POINTS, LABELS + 3 if heads else LABELS)
    torch.testing.assert_close(loss, expected)


def test_the_search_starts_halfway(tmp_path: Path) -> None:
    learner = after_two_tasks(tmp_path, connecting_epochs=0)
    assert not torch.equal(learner.before["0.weight"], learner.found["0.weight"])
    for name, value in learner.network.named_parameters():
        torch.testing.assert_close(value.detach(), 0.5 * (learner.before[name] + learner.found[name]))


@pytest.mark.parametrize(("epochs", "limits"), [(None, {}), (3, {}), (None, {"limit_train_batches": 4})])
def test_the_search_is_as_long_as_the_fit_or_as_asked(
    tmp_path: Path, epochs: int | None, limits: dict[str, int]
) -> None:
    learner = Watched(net(), 2, connecting_epochs=epochs)
    for task in tasks(2):
        trainer = fitting.trainer(tmp_path, **limits)
        trainer.fit(learner, task)
    assert learner.seen == (epochs or 2) * limits.get("limit_train_batches", 6)
    assert trainer.global_step == 2 * limits.get("limit_train_batches", 6)


def test_the_search_lowers_both_lines(tmp_path: Path) -> None:
    learner = after_two_tasks(tmp_path, connecting_epochs=20, cosine=True, per_class=20)
    (old, new), positions = tasks(2), torch.linspace(0, 1, 11).tolist()

    def height(end: Weights) -> float:
        lines = ((old, learner.before), (new, learner.found))
        return sum(
            float(
                F.cross_entropy(functional_call(learner.network, on_the_way(start, end, at), points), labels)
            )
            for task, start in lines
            for points, labels in [task.train_set.tensors]
            for at in positions
        ) / len(positions)

    halfway = on_the_way(learner.before, learner.found, 0.5)
    assert height(weights_of(learner)) < height(halfway) - 0.05


def test_the_first_task_is_plain_training(tmp_path: Path) -> None:
    learner = ModeConnectivitySGD(net(), 2)
    assert torch.equal(learner.loss(POINTS, LABELS), F.cross_entropy(learner.network(POINTS), LABELS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainers(tmp_path)().fit(learner, tasks(1)[0])
    kept = weights_of(learner)
    learner.learned.zero_()
    learner.end_task()
    assert all(torch.equal(value, kept[name]) for name, value in weights_of(learner).items())


def test_batch_norm_follows_the_search(tmp_path: Path) -> None:
    learner = after_two_tasks(tmp_path, norm=True)
    assert not torch.equal(learner.found["1.running_mean"], learner.network[1].running_mean)


@pytest.mark.parametrize(("cosine", "last"), [(True, 0.0), (False, 0.05)])
def test_the_search_slows_down_as_the_fit_does(tmp_path: Path, cosine: bool, last: float) -> None:
    made: list[torch.optim.Optimizer] = []

    def descent(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD(parameters, 0.05))
        return made[-1]

    after_two_tasks(tmp_path, cosine=cosine, optimizer=descent)
    assert len(made) == 3  # One for each fit, one for the search.
    assert made[-1].param_groups[0]["lr"] == pytest.approx(last, abs=1e-9)
