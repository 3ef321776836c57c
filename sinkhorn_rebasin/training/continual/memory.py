"""What is remembered of earlier tasks: a few samples of each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.batches import move_to
from sinkhorn_rebasin.networks.counting import check_rows
from sinkhorn_rebasin.networks.structures import flattened, replaced, tensors_in

Contents = dict[str, Any]


class Replay(NamedTuple):
    """Hold samples drawn from the memory.

    Attributes:
        inputs: as the dataloaders gave them, batched along the first axis.
        labels: (samples,), long.
        tasks: (samples,), long, the task each sample was met in.
        outputs: (samples, columns), what the network returned when that task was learned.
    """

    inputs: ExampleInputs
    labels: Tensor
    tasks: Tensor
    outputs: Tensor


class ReplayMemory(nn.Module):
    """Keep a uniform sample of finished tasks.

    For each class and task there are k examples. They are filled in while batches go by.

    Every offered sample gets a random number; the k smallest of each class stay, which is a uniform choice without
    replacement, whatever the length of the stream. The memory lies in main memory, is part of the state dict and
    draws from a generator of its own, whose state is part of it too.

    Args:
        per_class: k.
        seed: of the generator.

    Raises:
        DataError: k below one, labels that are no integers, inputs with another number of samples than labels, or a
            draw from an empty memory.

    Example:
        >>> memory = ReplayMemory(per_class=2)
        >>> memory.offer(torch.randn(9, 4), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2]))
        >>> memory.close(task=0, outputs_of=lambda inputs: inputs[:, :3])
        >>> len(memory), memory.draw(8).inputs.shape == (8, 4)
        (5, True)

    Source: the choice of a reservoir, Vitter, "Random Sampling with a Reservoir" (1985); k per class and task,
    Lopez-Paz, Ranzato (2017).
    """

    def __init__(self, per_class: int = 5, seed: int = 0) -> None:
        super().__init__()
        if per_class < 1:
            raise DataError(f"Expected to keep at least one sample per class but got per_class={per_class}.")
        self.per_class = per_class
        self.generator = torch.Generator().manual_seed(seed)
        self._closed: Contents = {}
        self._open: Contents = {}

    def __len__(self) -> int:
        """Count the samples of finished tasks."""
        return len(self._closed["labels"]) if self._closed else 0

    @torch.no_grad()
    def offer(self, inputs: ExampleInputs, labels: Tensor) -> None:
        """Show a batch of the current task.

        Each sample is shown once. Negative labels do not count.

        Raises:
            DataError: labels that are no integers, or inputs that have not as many samples along their first axis.
        """
        if labels.ndim != 1 or labels.is_floating_point():
            raise DataError(
                f"Expected integer labels of shape (samples,), to remember samples by class, but got {labels.dtype} "
                f"of shape {tuple(labels.shape)}."
            )
        check_rows(inputs, labels)
        chance = torch.rand(len(labels), generator=self.generator, dtype=torch.float64)
        offered = _on_cpu({"inputs": inputs, "labels": labels.long(), "chance": chance})
        candidates = join(self._open, select(offered, offered["labels"] >= 0))
        order = candidates["chance"].argsort()
        order = order[candidates["labels"][order].argsort(stable=True)]
        ordered = candidates["labels"][order]
        rank = torch.arange(len(ordered)) - torch.searchsorted(ordered, ordered)
        self._open = select(candidates, order[rank < self.per_class])

    def reopen(self) -> None:
        """Forget what the current task offered.

        It is then offered anew.
        """
        self._open = {}

    @torch.no_grad()
    def close(self, task: int, outputs_of: Callable[[ExampleInputs], Tensor]) -> None:
        """Keep what the current task leaves.

        It is kept with the outputs the network has for it.
        """
        if not self._open:
            raise DataError(
                f"Expected samples of task {task} but none were offered: was it trained on any batch?"
            )
        samples = {name: self._open[name] for name in ("inputs", "labels")}
        samples["tasks"] = torch.full_like(samples["labels"], task)
        samples["outputs"] = outputs_of(samples["inputs"]).detach().cpu()
        if samples["outputs"].shape[:1] != samples["labels"].shape:
            raise DataError(
                f"Expected outputs of shape (samples, columns) for {len(samples['labels'])} remembered samples but "
                f"got {tuple(samples['outputs'].shape)}."
            )
        self._closed = join(self._closed, samples)
        self._open = {}

    def classes(self) -> Tensor:
        """Return the labels of finished tasks.

        Each comes once, in their order.
        """
        return self._closed["labels"].unique() if self._closed else torch.empty(0, dtype=torch.long)

    def draw(self, count: int, device: torch.device | str = "cpu") -> Replay:
        """Draw samples of finished tasks with replacement.

        They are drawn uniformly.
        """
        if not len(self):
            raise DataError("Expected a memory with samples but no task was closed yet.")
        chosen = torch.randint(len(self), (count,), generator=self.generator)
        return self._replay(chosen, device)

    def draw_pairs(self, count: int, device: torch.device | str = "cpu") -> tuple[Replay, Replay]:
        """Draw pairs of samples of one task."""
        if not len(self):
            raise DataError("Expected a memory with samples but no task was closed yet.")
        first = torch.randint(len(self), (count,), generator=self.generator)
        tasks: Tensor = self._closed["tasks"]
        start = torch.searchsorted(tasks, tasks[first])
        size = torch.searchsorted(tasks, tasks[first], right=True) - start
        second = start + (torch.rand(count, generator=self.generator, dtype=torch.float64) * size).long()
        return self._replay(first, device), self._replay(second, device)

    def everything(self, device: torch.device | str = "cpu", batch_size: int = 256) -> Iterator[Replay]:
        """Yield all samples of finished tasks.

        They come in batches, in the order they came.
        """
        for chosen in torch.arange(len(self)).split(batch_size):
            yield self._replay(chosen, device)

    def inputs_seen(self, batch_size: int = 256) -> Iterator[ExampleInputs]:
        """Yield the remembered inputs of all tasks.

        The current task is included. Batches are of one size, with tasks mixed.
        """
        parts = [{"inputs": part["inputs"]} for part in (self._closed, self._open) if part]
        if parts:
            joined = parts[0] if len(parts) == 1 else join(*parts)
            count = _length(joined["inputs"])
            batches = -(-count // batch_size)
            for first in range(batches):
                yield select(joined, torch.arange(first, count, batches))["inputs"]

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a state dict keeps."""
        return {"closed": self._closed, "open": self._open, "generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what a state dict kept."""
        self._closed, self._open = _on_cpu(state["closed"]), _on_cpu(state["open"])
        self.generator.set_state(state["generator"].cpu())

    def extra_repr(self) -> str:
        """Describe the memory in one line."""
        return f"{self.per_class} per class and task, {len(self)} samples"

    def _replay(self, chosen: Tensor, device: torch.device | str) -> Replay:
        return Replay(**move_to(select(self._closed, chosen), torch.device(device)))


def _length(inputs: ExampleInputs) -> int:
    return len(tensors_in(inputs)[0])


def _on_cpu(contents: Contents) -> Contents:
    moved: Contents = replaced(contents, lambda tensor: tensor.detach().cpu())
    return moved


def select(contents: Contents, indices: Tensor) -> Contents:
    """Select the samples at these indices."""
    chosen: Contents = replaced(contents, lambda tensor: tensor[indices])
    return chosen


def join(first: Contents, second: Contents) -> Contents:
    """Join the samples of both, one after another."""
    if not first:
        return second
    (ours, rebuilt), theirs = flattened(first), tensors_in(second)
    shapes = [[tensor.shape[1:] for tensor in tensors] for tensors in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"Expected samples of one shape, to put them together, but got {shapes[0]} and {shapes[1]}."
        )
    joined: Contents = rebuilt([torch.cat(pair) for pair in zip(ours, theirs, strict=True)])
    return joined
