"""How many samples of what are remembered, and that the choice is a fair one."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training.continual import ReplayMemory


def outputs(inputs: Tensor) -> Tensor:
    """What a network would say."""
    return 2 * inputs[:, :1]


def stream(memory: ReplayMemory, task: int, labels: list[int], batch_size: int = 7) -> Tensor:
    """Show numbered samples to the memory and close the task."""
    points = torch.arange(len(labels)).float()[:, None] + 1000 * task
    for part in torch.arange(len(labels)).split(batch_size):
        memory.offer(points[part], torch.tensor(labels)[part])
    memory.close(task, outputs)
    return points


def contents(memory: ReplayMemory) -> list[tuple[float, int, int, float]]:
    """Every remembered sample: input, label, task, output."""
    parts = list(memory.everything(batch_size=4))
    rows = zip(*(torch.cat([part[i].reshape(-1) for part in parts]).tolist() for i in range(4)), strict=True)
    return [tuple(row) for row in rows]  # type: ignore[misc]


def test_counts_per_class_and_task() -> None:
    memory = ReplayMemory(per_class=3)
    stream(memory, 0, [0] * 20 + [1] * 2 + [5] * 9)
    stream(memory, 1, [1, 0] * 10)
    counts = Counter((label, task) for _, label, task, _ in contents(memory))
    assert counts == {(0, 0): 3, (1, 0): 2, (5, 0): 3, (0, 1): 3, (1, 1): 3}
    assert len(memory) == 14


def test_samples_keep_their_label_task_and_output() -> None:
    memory, labels = ReplayMemory(per_class=2), [i % 3 for i in range(30)]
    for task in range(2):
        stream(memory, task, labels)
    rows = contents(memory)
    assert len(set(rows)) == len(rows) == 12
    for point, label, task, output in rows:
        assert label == labels[int(point) - 1000 * task]
        assert output == 2 * point


def test_every_sample_is_as_likely_as_any_other() -> None:
    chosen: Counter[float] = Counter()
    for seed in range(600):
        memory = ReplayMemory(per_class=2, seed=seed)
        stream(memory, 0, [0] * 12, batch_size=5)
        chosen.update(point for point, *_ in contents(memory))
    # 600 draws of 2 out of 12: 100 each, with a standard deviation of about 9.
    assert set(chosen) == set(range(12))
    assert all(65 < count < 135 for count in chosen.values())


def test_pairs_are_of_one_task() -> None:
    memory = ReplayMemory(per_class=4)
    for task, classes in enumerate((3, 1, 2)):
        stream(memory, task, list(range(classes)) * 6)
    first, second = memory.draw_pairs(500)
    assert torch.equal(first.tasks, second.tasks)
    assert set(first.inputs.flatten().tolist()) == set(second.inputs.flatten().tolist())
    assert len(set(first.inputs.flatten().tolist())) == len(memory) == 24


def test_state_goes_through_a_file() -> None:
    memory = ReplayMemory(per_class=2, seed=4)
    stream(memory, 0, [0, 1] * 5)
    memory.offer(torch.randn(6, 1), torch.tensor([0, 1, 0, 1, 0, 1]))
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    twin = ReplayMemory(per_class=2, seed=9)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for each in (memory, twin):
        each.offer(torch.arange(4.0)[:, None], torch.tensor([0, 0, 1, 1]))
        each.close(1, outputs)
    assert contents(memory) == contents(twin)
    assert torch.equal(memory.draw(9).inputs, twin.draw(9).inputs)


def test_inputs_of_any_structure() -> None:
    memory = ReplayMemory(per_class=1)
    words, masks = torch.arange(12).reshape(6, 2), torch.ones(6, 2, dtype=torch.bool)
    memory.offer({"words": words, "more": (masks, words)}, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert len(next(memory.inputs_seen())["words"]) == 2
    memory.close(0, lambda inputs: inputs["words"].float())
    drawn = memory.draw(5)
    assert torch.equal(drawn.inputs["words"].float(), drawn.outputs)
    assert drawn.inputs["more"][0].shape == (5, 2)


def test_all_inputs_are_seen_in_batches_of_like_size_and_mixed_tasks() -> None:
    memory = ReplayMemory(per_class=30)
    points = [stream(memory, task, [0, 1] * 15) for task in range(2)]
    memory.offer(torch.full((5, 1), -1.0), torch.tensor([0, 0, 0, 1, 1]))
    batches = list(memory.inputs_seen(batch_size=16))
    assert [len(batch) for batch in batches] == [13] * 5
    assert all(len({int(point) // 1000 for point in batch.flatten()}) == 3 for batch in batches)
    expected = torch.cat([*points, torch.full((5, 1), -1.0)]).flatten()
    assert torch.equal(torch.cat(batches).flatten().sort().values, expected.sort().values)
    # One sample alone has no batch statistics.
    assert [len(batch) for batch in memory.inputs_seen(batch_size=64)] == [33, 32]


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    memory = ReplayMemory()
    stream(memory, 0, [0, 1, 2])
    memory.draw(3)
    memory.draw_pairs(3)
    assert torch.equal(before, torch.get_rng_state())


def test_errors() -> None:
    with pytest.raises(DataError, match="per_class=0"):
        ReplayMemory(0)
    memory = ReplayMemory()
    for draw in (memory.draw, memory.draw_pairs):
        with pytest.raises(DataError, match="no task was closed"):
            draw(1)
    with pytest.raises(DataError, match=r"integer labels of shape \(samples,\)"):
        memory.offer(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(DataError, match="samples of task 3"):
        memory.close(3, outputs)
    memory.offer(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError, match="one shape"):
        memory.offer(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        (torch.zeros(6, 4, 1), r"inputs has shape \(6, 4, 1\)"),
        ({"x": torch.zeros(4, 3), "scale": torch.tensor(2.0)}, r"inputs\['scale'\] has shape \(\)"),
        ((torch.zeros(4, 3), [torch.zeros(1, 4)]), r"inputs\[1\]\[0\] has shape \(1, 4\)"),
        ({"edges": torch.zeros(2, 9)}, r"inputs\['edges'\]"),
    ],
    ids=["sequence first", "scalar", "nested", "graph"],
)
def test_samples_on_another_axis_are_refused_by_name(inputs: object, where: str) -> None:
    memory = ReplayMemory()
    with pytest.raises(DataError, match=where):
        memory.offer(inputs, torch.tensor([0, 0, 1, 1]))
    assert not list(memory.inputs_seen())


def test_outputs_on_another_axis_are_refused() -> None:
    memory = ReplayMemory()
    memory.offer(torch.zeros(5, 3), torch.tensor([0, 0, 1, 1, 1]))
    with pytest.raises(DataError, match=r"for 5 remembered samples but got \(3, 5\)"):
        memory.close(0, lambda inputs: inputs.T)


def test_negative_labels_are_not_remembered() -> None:
    memory = ReplayMemory(per_class=9)
    stream(memory, 0, [0, -100, 1, -100, 1, -1])
    assert sorted(label for _, label, *_ in contents(memory)) == [0, 1, 1]
