"""Learners learn digits as they come, and say so when a task was not learned."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from experiments.continual_learning.methods import METHODS, build_learner
from experiments.data import load_digits
from experiments.data.task_data import split_by_class
from sinkhorn_rebasin.errors import LearningWarning, LossError
from sinkhorn_rebasin.training.continual import (
    ContinualLearner,
    DarkExperienceReplay,
    DistillingRebasinLearner,
    FineTuning,
    RebasinLearner,
)
from sinkhorn_rebasin.training.continual.unlearned import recall_by_class, warn_if_unlearned
from tests.training.continual.tasks import EXAMPLE, Task, net, tasks, trainers
from tests.training.fitting import trainer


@pytest.fixture(scope="module")
def digits() -> list[Any]:
    """Two tasks of two digits each."""
    return split_by_class(load_digits(), [[0, 1], [2, 3]], batch_size=32)


def digit_net(norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(64)] if norm else []
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), *middle, nn.ReLU(), nn.Linear(64, 10))


def recognized(learner: ContinualLearner, digits: list[Any], folder: Path) -> list[float]:
    """Teach both tasks; return the accuracies on each when the last was learned."""
    with torch.random.fork_rng(devices=[]):
        lightning.seed_everything(0, verbose=False)
        for task in digits:
            trainer(folder, max_epochs=5).fit(learner, task)
    shares = []
    for task in digits:
        images, labels = next(iter(task.test_dataloader()))
        shares.append(float((learner.evaluated(images).argmax(dim=1) == labels).float().mean()))
    return shares


def test_ours_learns_new_classes_with_batch_norm_as_it_comes(digits: list[Any], tmp_path: Path) -> None:
    example = torch.zeros(2, 1, 8, 8)
    learner = DistillingRebasinLearner(digit_net(norm=True), 2, example, per_class=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LearningWarning)
        old, new = recognized(learner, digits, tmp_path)
    assert old > 0.9
    assert new > 0.6  # none of them after a first task by descent at 0.05


def test_the_published_learner_says_that_it_learns_no_new_class(digits: list[Any], tmp_path: Path) -> None:
    learner = RebasinLearner(digit_net(norm=True), 2, torch.zeros(2, 1, 8, 8), per_class=20)
    with pytest.warns(
        LearningWarning, match=r"RebasinLearner to learn task 1 .* 0\.05.*DistillingRebasinLearner"
    ):
        old, new = recognized(learner, digits, tmp_path)
    assert old > 0.9
    assert new < 0.1


def test_dark_replay_stays_where_its_curvature_lets_it(digits: list[Any], tmp_path: Path) -> None:
    old, new = recognized(DarkExperienceReplay(digit_net(norm=False), 2), digits, tmp_path)
    assert min(old, new) > 0.85


def test_dark_replay_diverges_past_twice_the_inverse_curvature(tmp_path: Path) -> None:
    """On its squared outputs alone, descent with momentum m is stable up to 2 (1 + m) / curvature, not above."""

    class Squares(DarkExperienceReplay):
        def task_loss(self, outputs: Tensor, labels: Tensor, tasks: Tensor | int) -> Tensor:
            return 0.0 * outputs.sum()

    def distance(share_of_limit: float) -> float:
        learner = Squares(nn.Linear(1, 1, bias=False), 2, cosine=False, lr=share_of_limit * 2 * 1.9)
        learner.memory.offer(torch.ones(4, 1), torch.zeros(4, dtype=torch.long))  # type: ignore[union-attr]
        learner.memory.close(0, lambda x: torch.zeros(len(x), 1))  # type: ignore[union-attr]
        learner.learned += 1
        with torch.no_grad():
            learner.network.weight.fill_(1.0)
        # The drift is w²/2: its curvature is one.
        data = torch.utils.data.TensorDataset(torch.ones(400, 1), torch.zeros(400, dtype=torch.long))
        fit = trainer(tmp_path, max_epochs=1)
        fit.fit(learner, torch.utils.data.DataLoader(data, 4))
        return float(learner.network.weight.detach().abs())

    assert distance(0.9) < 0.1
    with pytest.raises(LossError, match=r"inf.* Squares, with SGD at a rate of 4\.18"):
        distance(1.1)


def test_an_infinite_loss_names_learner_and_rate(tmp_path: Path) -> None:
    class Infinite(FineTuning):
        def loss(self, inputs: Any, labels: Tensor) -> Tensor:
            return self(inputs).sum() * torch.inf

    with pytest.raises(
        LossError, match=r"inf.* in task 0 of Infinite, with SGD at a rate of 0\.3: lower the rate"
    ):
        trainers(tmp_path)().fit(Infinite(net(), 1, lr=0.3), Task(0))


def test_what_was_learned_is_not_warned_of(tmp_path: Path) -> None:
    learner = FineTuning(net(), 1, lr=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LearningWarning)
        trainers(tmp_path, epochs=8)().fit(learner, Task(0))
    constant = net()
    with torch.no_grad():
        constant[2].bias.copy_(torch.tensor([0.0, 99.0, 0.0]))
    slow = FineTuning(constant, 1, lr=1e-6)
    with pytest.warns(LearningWarning, match=r"FineTuning to learn task 0 .* SGD at a rate of 1e-06"):
        trainers(tmp_path)().fit(slow, Task(0))


def test_judging_a_task_leaves_modes_and_random_state(tmp_path: Path) -> None:
    learner = FineTuning(net(norm=True), 1)
    trainers(tmp_path)().fit(learner, Task(0))
    points, labels = Task(0).train_set.tensors
    learner._recent.append((points, labels))
    before, state = (
        {n: v.clone() for n, v in learner.state_dict().items() if "network" in n},
        torch.get_rng_state(),
    )
    learner.learned.zero_()
    learner._judge()
    assert all(torch.equal(learner.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in learner.network.modules())


@pytest.mark.parametrize(
    ("predictions", "labels", "warns"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 0], True),  # one answer to everything, right on three of four
        ([1, 1, 0, 0], [1, 1, 1, 0], False),
        ([0, 0, 0, 1], [1, 1, 1, 1], True),  # a single class, mostly missed
        ([1, 1, 1, 0], [1, 1, 1, 1], False),
        ([5, 5], [-1, -1], False),  # nothing to judge by
    ],
)
def test_recall_decides_and_not_how_often_classes_come(
    predictions: list[int], labels: list[int], warns: bool
) -> None:
    recall = recall_by_class(torch.tensor(predictions), torch.tensor(labels))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_unlearned(recall, "Learner", 3, "SGD at a rate of 1", "More epochs.")
    assert bool(caught) == warns


def test_the_experiment_runs_defaults_with_few_exceptions() -> None:
    changed = [name for name, make in METHODS.items() if not isinstance(make, type)]
    assert changed == [
        *("experience replay, AdamW", "DER++, AdamW"),
        *("published, without permutations", "ours, without permutations"),
    ]


@pytest.mark.parametrize("method", ["DER++", "re-basin, ours", "re-basin, published", "EWC", "stable SGD"])
def test_defaults_are_what_the_figures_were_measured_with(method: str, tmp_path: Path) -> None:
    learner = build_learner(method, net(), 2, EXAMPLE)
    measured = {
        "DER++": ("SGD", 0.02, True),
        "re-basin, ours": ("AdamW", 0.004, True),
        "re-basin, published": ("SGD", 0.05, False),
        "EWC": ("SGD", 0.02, True),
        "stable SGD": ("SGD", 0.1, False),
    }
    optimizer = learner.network_optimizer()
    rate = optimizer.param_groups[0]["lr"]
    assert (type(optimizer).__name__, rate, learner.cosine) == measured[method]
    assert getattr(learner, "penalty", 10.0) == 10.0
    assert optimizer.param_groups[0]["weight_decay"] == 0.0


def test_ours_takes_an_optimizer_and_momentum_in_the_first_task() -> None:
    plain = DistillingRebasinLearner(net(), 2, EXAMPLE, optimizer=lambda p: torch.optim.SGD(p, 0.3))
    assert isinstance(plain.network_optimizer(), torch.optim.SGD)
    quicker = DistillingRebasinLearner(net(), 2, EXAMPLE, momentum=0.5, lr=0.01).network_optimizer()
    assert quicker.param_groups[0]["betas"] == (0.5, 0.999)
    assert quicker.param_groups[0]["lr"] == 0.01


def test_tasks_of_the_shared_problem_are_judged_by_their_last_samples(tmp_path: Path) -> None:
    learner = FineTuning(net(), 2)
    seen: list[int] = []
    judge = learner._judge
    learner._judge = lambda: (seen.append(sum(len(labels) for _, labels in learner._recent)), judge())  # type: ignore
    for task in tasks(2):
        trainers(tmp_path)().fit(learner, task)
    assert seen == [64, 64]
    assert not learner._recent
