"""Tasks in a row: what is filled in, what is kept, and that a stopped run ends as one that was not."""

from __future__ import annotations

import pickle
from collections import UserDict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin.errors import CheckpointError, DataError
from sinkhorn_rebasin.training.continual import ContinualLearner, FineTuning, learn_tasks
from tests.training.continual.tasks import (
    LEARNERS,
    Interruption,
    StopsAt,
    StopsAtHook,
    Task,
    net,
    tasks,
    trainers,
    weights_of,
)


def run(
    name: str,
    folder: Path,
    count: int,
    checkpoint: Path | None = None,
    stop: lightning.Callback | None = None,
) -> ContinualLearner:
    """A whole run of fresh objects, or the part before it is stopped."""
    learner = LEARNERS[name](net(norm=name == "rebasin"), count)
    callbacks = [] if stop is None else [stop]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        learn_tasks(learner, tasks(count), trainers(folder, *callbacks), checkpoint=checkpoint)
    return learner


@cache
def whole_run(name: str) -> ContinualLearner:
    """A run of three tasks that nothing stopped."""
    with TemporaryDirectory() as folder:
        return run(name, Path(folder), 3)


def same(first: ContinualLearner, second: ContinualLearner) -> None:
    """Bit for bit."""
    assert torch.equal(first.accuracy.correct, second.accuracy.correct)
    assert torch.equal(first.accuracy.samples, second.accuracy.samples)
    for name, value in weights_of(first).items():
        assert torch.equal(value, second.network.state_dict()[name]), name


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "joint"])
def test_a_run_stopped_in_a_task_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    with pytest.raises(Interruption):
        run(name, tmp_path, 3, file, StopsAt(1, 1))
    resumed = run(name, tmp_path, 3, file)
    same(whole_run(name), resumed)
    assert resumed.task == 3


@pytest.mark.parametrize("name", ["ewc", "mc-sgd", "rebasin", "replay"])
@pytest.mark.parametrize("stop", [("on_train_end", 1), ("on_test_start", 2)])
def test_a_run_stopped_after_the_last_step_of_a_task(
    name: str, stop: tuple[str, int], tmp_path: Path
) -> None:
    file = tmp_path / "run.ckpt"
    with pytest.raises(Interruption):
        run(name, tmp_path, 3, file, StopsAtHook(*stop))
    resumed = run(name, tmp_path, 3, file)
    same(whole_run(name), resumed)
    assert resumed.task == 3


def test_one_trainer_for_all_tasks_is_an_error(tmp_path: Path) -> None:
    only, learner = trainers(tmp_path)(), FineTuning(net(), 2)
    with pytest.raises(DataError, match="make a new one for each task"):
        learn_tasks(learner, tasks(2), lambda: only)
    assert learner.task == 1


def test_a_run_stopped_in_task_seven(tmp_path: Path) -> None:
    whole = run("rebasin", tmp_path, 9)
    file = tmp_path / "run.ckpt"
    for stop in ((3, 0), (7, 1)):  # Between two tasks, then in the middle of one.
        with pytest.raises(Interruption):
            run("rebasin", tmp_path, 9, file, StopsAt(*stop))
    same(whole, run("rebasin", tmp_path, 9, file))


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    whole = run("replay", tmp_path, 2, file)
    with torch.random.fork_rng(devices=[]):
        learner = LEARNERS["replay"](net(), 2)
        assert torch.equal(
            learn_tasks(learner, tasks(2), trainers(tmp_path, StopsAt(0, 0)), checkpoint=file),
            whole.accuracy_matrix(),
        )
    same(whole, learner)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_the_matrix_is_filled_and_the_caller_keeps_what_it_had(name: str, tmp_path: Path) -> None:
    network = net().eval()
    network[0].weight.requires_grad_(name != "fine-tuning")
    before = pickle.dumps(network)
    learner = LEARNERS[name](network, 2)
    matrix = learn_tasks(learner, tasks(2), trainers(tmp_path))
    assert pickle.dumps(network) == before
    assert matrix.isnan().any().item() == (name == "joint")
    assert not matrix[-1].isnan().any()
    assert not learner.initial_accuracies().isnan().any()
    assert type(learner.network) is type(network)
    assert any(not torch.equal(v, network.state_dict()[k]) for k, v in weights_of(learner).items())
    # The last row is what the network that is left computes.
    learner.network.eval()
    for column, task in enumerate(tasks(2)):
        points, labels = task.test_set.tensors
        accuracy = (learner.network(points).argmax(dim=1) == labels).float().mean()
        assert matrix[-1, column].item() == pytest.approx(accuracy.item())


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_heads_of_their_own(name: str, tmp_path: Path) -> None:
    heads = [[0, 1, 2], [3, 4, 5]]
    options: dict[str, Any] = {} if name == "stable" else {"lr": 0.05, "cosine": False}
    learner = LEARNERS[name](net(6), 2, classes=heads, **options)
    datamodules = [Task(0), Task(0, first_class=3)]
    matrix = learn_tasks(learner, datamodules, trainers(tmp_path, epochs=6))
    assert matrix[-1].min() > (0.35 if name == "rebasin" else 0.5)
    outputs = learner.heads(learner.network(torch.randn(5, 4)), 1)
    assert outputs[:, :3].isneginf().all()
    assert outputs[:, 3:].isfinite().all()


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_labels_of_one_byte(name: str, tmp_path: Path) -> None:
    def learned(dtype: torch.dtype) -> torch.Tensor:
        learner, data = (
            LEARNERS[name](net(6), 2, classes=[[0, 1, 2], [3, 4, 5]]),
            [Task(0), Task(0, first_class=3)],
        )
        for each in (part for task in data for part in (task.train_set, task.test_set)):
            each.tensors = each.tensors[0], each.tensors[1].to(dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return learn_tasks(learner, data, trainers(tmp_path, epochs=1)).nan_to_num()

    assert torch.equal(learned(torch.uint8), learned(torch.long))


class WithExtraState(nn.Linear):
    """A layer whose state dict holds more than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_networks_with_extra_state(name: str, tmp_path: Path) -> None:
    network = nn.Sequential(WithExtraState(4, 12), nn.ReLU(), nn.Linear(12, 3))
    learner = LEARNERS[name](network, 2)
    learn_tasks(learner, tasks(2), trainers(tmp_path, epochs=1))
    assert learner.task == 2


class OfWords(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.body(points)


@pytest.mark.parametrize("mapping", [dict, UserDict])
@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"distilling", "rebasin"}))
def test_inputs_by_name(name: str, mapping: type, tmp_path: Path) -> None:
    def collated(batch: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[object, torch.Tensor]:
        points, labels = zip(*batch, strict=True)
        return mapping({"points": torch.stack(points)}), torch.stack(labels)

    data = tasks(2)
    for task in data:
        task.train_dataloader = lambda t=task: DataLoader(t.train_set, 8, collate_fn=collated)  # type: ignore[method-assign,misc]
        task.test_dataloader = lambda t=task: DataLoader(t.test_set, 16, collate_fn=collated)  # type: ignore[method-assign,misc]
    learner = LEARNERS[name](OfWords(), 2)
    matrix = learn_tasks(learner, data, trainers(tmp_path, epochs=1))
    assert not matrix[-1].isnan().any()
    if learner.memory is not None:
        assert next(learner.memory.everything()).inputs["points"].shape == (30, 4)


def test_a_fit_that_failed_leaves_nothing_in_the_memory(tmp_path: Path) -> None:
    learner = LEARNERS["replay"](net(), 2, per_class=20)
    with pytest.raises(Interruption):
        trainers(tmp_path, StopsAt(0, 1))().fit(learner, tasks(1)[0])
    trainers(tmp_path)().fit(learner, tasks(1)[0])
    assert learner.memory is not None
    points = torch.cat([part.inputs for part in learner.memory.everything()])
    assert len(points.unique(dim=0)) == len(points)


def test_any_number_of_validation_loaders_and_teardown(tmp_path: Path) -> None:
    data, torn = tasks(2), []
    for task in data:
        task.val_dataloader = lambda t=task: [DataLoader(t.test_set, 16)] * 2  # type: ignore[method-assign,misc]
        task.teardown = lambda stage, t=task: torn.append((t, stage))  # type: ignore[method-assign,misc]
    learner = LEARNERS["rebasin"](net(), 2)
    learn_tasks(learner, data, trainers(tmp_path, epochs=1))
    assert learner.task == 2
    assert torn.count((data[0], "test")) == torn.count((data[1], "test")) == 3


def test_replay_forgets_less_than_fine_tuning(tmp_path: Path) -> None:
    after = {name: run(name, tmp_path, 4).accuracy_matrix()[-1] for name in ("fine-tuning", "replay")}
    assert after["replay"].mean() > after["fine-tuning"].mean()


def test_any_trainer_without_the_loop(tmp_path: Path) -> None:
    learner, data = FineTuning(net(), 2), tasks(2)
    for task in data:
        make = trainers(tmp_path)()
        make.fit(learner, task)
        make.test(learner, [each.test_dataloader() for each in data], verbose=False)
    assert not learner.accuracy_matrix().isnan().any()
    with pytest.raises(DataError, match="at most 2 tasks"):
        trainers(tmp_path)().fit(learner, data[0])


def test_a_checkpoint_of_another_learner_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    run("fine-tuning", tmp_path, 2, file)
    for other in (LEARNERS["replay"](net(), 2), FineTuning(net(5), 2), FineTuning(net(), 3)):
        with pytest.raises(CheckpointError, match="written for another network"):
            learn_tasks(other, tasks(other.tasks), trainers(tmp_path), checkpoint=file)


def test_a_task_without_batches_is_an_error(tmp_path: Path) -> None:
    data = tasks(2)
    empty = TensorDataset(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    data[1].train_dataloader = lambda: DataLoader(empty, 8)  # type: ignore[method-assign]
    learner = FineTuning(net(), 2)
    with pytest.raises(DataError, match="at least one batch for task 1"):
        learn_tasks(learner, data, trainers(tmp_path))
    assert learner.task == 1


def test_errors(tmp_path: Path) -> None:
    make = trainers(tmp_path)
    with pytest.raises(DataError, match="3 tasks but got 2"):
        learn_tasks(FineTuning(net(), 3), tasks(2), make)
    with pytest.raises(DataError, match=r"ends in \.ckpt but got 'run'"):
        learn_tasks(FineTuning(net(), 2), tasks(2), make, checkpoint=tmp_path / "run")
    with pytest.raises(DataError, match="each of 2 tasks but got 1 sets"):
        FineTuning(net(), 2, classes=[[0]])
    with pytest.raises(DataError, match="one test dataloader for each of 2 tasks"):
        make().test(FineTuning(net(), 2), tasks(2)[0].test_dataloader(), verbose=False)
