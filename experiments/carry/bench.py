"""One pair of bases on its two tasks, as every method sees it, and how a network is measured on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.carry.pairs import Pair
from experiments.carry.setting import Setting
from experiments.carry.tasks import Labelled, Task
from experiments.models.training import augmented
from sinkhorn_rebasin.activations.batch_norm import reset_batch_norm
from sinkhorn_rebasin.networks.copying import standalone_copy

BATCH = 100
Network = Callable[[Tensor], Tensor]
Tried = tuple[dict[str, Any], Network]


@dataclass(frozen=True)
class Bench:
    """Hold a pair, the base task and the new one.

    Every choice is made on held-out samples of the new task; the test decides nothing.
    """

    setting: Setting
    pair: Pair
    base_task: Task
    new_task: Task
    seed: int

    @property
    def examples(self) -> Tensor:
        """Return two inputs of the base task."""
        return self.base_task.train[0][:2]

    def base_batches(self) -> list[Any]:
        """Return unlabelled samples of the base task, in batches."""
        return list(self._drawn(self.base_task, self.setting.looked_at)[0].split(BATCH))

    def unlabelled(self) -> list[Any]:
        """Return unlabelled samples of the new task, in batches."""
        size = min(BATCH, max(1, self.setting.unlabelled // 5))
        return list(self._drawn(self.new_task, self.setting.unlabelled)[0].split(size))

    def labelled(self, count: int) -> Labelled:
        """Return so many samples of the new task with their labels."""
        return self._drawn(self.new_task, count)

    def judged(self, network: Network) -> float:
        """Return what decides: the error, or the loss, on held-out samples of the new task."""
        loss, accuracy = measured(self.settled(network, self.new_task), self.new_task.held_out)
        return -accuracy if self.setting.decide == "accuracy" else loss

    def figures(self, network: Network) -> dict[str, float]:
        """Measure loss and accuracy on the tests of both tasks."""
        tasks = self.new_task, self.base_task
        new, base = (measured(self.settled(network, task), task.test) for task in tasks)
        return {"new_loss": new[0], "new_accuracy": new[1], "base_loss": base[0], "base_accuracy": base[1]}

    def settled(self, network: Network, task: Task) -> Network:
        """Return a network whose batch norms have the statistics of a task's unlabelled samples.

        It is so for every row, the new base and its own fine-tune among them. Others are returned as they are.
        """
        if not isinstance(network, nn.Module):
            return network
        if not any(isinstance(layer, _BatchNorm) for layer in network.modules()):
            return network
        return reset_batch_norm(network, self._drawn(task, self.setting.unlabelled)[0].split(BATCH))

    def _drawn(self, task: Task, count: int) -> Labelled:
        inputs, labels = task.train
        picked = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))[:count]
        return inputs[picked], labels[picked]


def best(bench: Bench, tried: Iterable[Tried]) -> dict[str, Any]:
    """Return a row: the figures of what is best on held-out samples, and what was chosen."""
    began = time.perf_counter()
    kept: tuple[float, dict[str, Any], Network] | None = None
    curve = []
    for choice, network in tried:
        value = bench.judged(network)
        curve.append({**choice, "held_out": value})
        if kept is None or value < kept[0]:
            kept = value, choice, network
    assert kept is not None
    seconds = time.perf_counter() - began
    return {"choice": kept[1], **bench.figures(kept[2]), "seconds": seconds, "tried": curve}


@torch.no_grad()
def measured(network: Network, samples: Labelled) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy; classes are the second axis of outputs."""
    loss = hits = 0.0
    for inputs, labels in zip(samples[0].split(1000), samples[1].split(1000), strict=True):
        outputs = network(inputs)
        loss += F.cross_entropy(outputs, labels, reduction="sum").item()
        hits += (outputs.argmax(1) == labels).sum().item()
    return loss / samples[1].numel(), hits / samples[1].numel()


def tuned_on(
    network: nn.Module,
    samples: Labelled,
    *,
    rate: float,
    steps: int,
    batch_size: int,
    seed: int,
    reach: int = 0,
) -> nn.Module:
    """Tune a copy with Adam, whose rate falls to zero, and return it in evaluation mode.

    Images are shifted by up to `reach` pixels at every step.
    """
    twin = standalone_copy(network).train()
    twin.requires_grad_(True)
    adam = torch.optim.Adam(twin.parameters(), rate)
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        picked = torch.randint(len(samples[1]), (min(batch_size, len(samples[1])),), generator=draw)
        inputs = samples[0][picked]
        if reach:
            with torch.random.fork_rng([]):
                torch.manual_seed(seed + step)
                inputs = augmented(inputs, reach, mirrored=False)
        loss = F.cross_entropy(twin(inputs), samples[1][picked])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return twin.eval()
