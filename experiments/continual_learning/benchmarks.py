"""Sequences of tasks to learn one after another.

Sources: Rotated MNIST, Lopez-Paz, Ranzato (2017), with 20 tasks Mirzadeh et al. (2020); Split CIFAR, Zenke, Poole,
Ganguli, "Continual Learning Through Synaptic Intelligence" (2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from experiments.data import ImageData, load_cifar10, load_digits, load_mnist
from experiments.data.cifar100 import load_cifar100
from experiments.data.rotation import Interpolation, rotated
from experiments.data.task_data import Part, TaskDataModule, split_by_class
from experiments.models import build_model

Scenario = Literal["task", "class"]


@dataclass(frozen=True)
class Sizes:
    """How much of a benchmark to run; None is its own default."""

    tasks: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    train_images: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """Tasks, the network that learns them, and how long it does.

    `classes` are the output columns of each task where a sample is shown those of its own task alone.
    """

    name: str
    data: ImageData
    datamodules: Sequence[TaskDataModule]
    classes: Sequence[Sequence[int]] | None
    model: str
    arguments: dict[str, Any]
    epochs: int
    batch_size: int

    def network(self, seed: int) -> nn.Module:
        """A fresh network."""
        torch.manual_seed(seed)
        return build_model(self.model, **self.arguments)

    def example_inputs(self) -> Tensor:
        """Two images."""
        return self.data.test_images[:2]


def split_digits(root: Path, scenario: Scenario, sizes: Sizes, interpolation: Interpolation) -> Benchmark:
    """scikit-learn's digits, two classes a task, and a network of 64 hidden units."""
    data = load_digits(sizes.train_images)
    arguments = {"inputs": math.prod(data.image_shape), "widths": [64], "classes": 10}
    return _split("split-digits", data, 2, scenario, sizes, ("mlp", arguments), epochs=10, batch_size=16)


def split_cifar10(root: Path, scenario: Scenario, sizes: Sizes, interpolation: Interpolation) -> Benchmark:
    """CIFAR-10, two classes a task, and a small convolutional network."""
    data = load_cifar10(root, sizes.train_images)
    return _split(
        "split-cifar10",
        data,
        2,
        scenario,
        sizes,
        ("cnn", {"classes": 10, "widths": [16, 32]}),
        epochs=5,
        batch_size=64,
    )


def split_cifar100(root: Path, scenario: Scenario, sizes: Sizes, interpolation: Interpolation) -> Benchmark:
    """CIFAR-100, five classes a task, and a small convolutional network."""
    data = load_cifar100(root, sizes.train_images)
    return _split(
        "split-cifar100",
        data,
        5,
        scenario,
        sizes,
        ("cnn", {"classes": 100, "widths": [16, 32]}),
        epochs=10,
        batch_size=32,
    )


def rotated_mnist(root: Path, scenario: Scenario, sizes: Sizes, interpolation: Interpolation) -> Benchmark:
    """All of MNIST in every task, turned evenly from 0 to 180 degrees, and a network of 256 hidden units.

    All tasks have the same ten classes and outputs, whatever the scenario.
    """
    data = load_mnist(root, sizes.train_images)
    tasks, batch_size = sizes.tasks or 20, sizes.batch_size or 256
    angles = torch.linspace(0, 180, tasks).tolist()

    def turned(images: Tensor, labels: Tensor, angle: float) -> Callable[[], Part]:
        return lambda: (rotated(images, angle, interpolation).flatten(1), labels)

    modules = [
        TaskDataModule(
            turned(data.train_images, data.train_labels, angle),
            turned(data.test_images, data.test_labels, angle),
            batch_size,
        )
        for angle in angles
    ]
    arguments = {"inputs": math.prod(data.image_shape), "widths": [256], "classes": 10}
    return Benchmark("rotated-mnist", data, modules, None, "mlp", arguments, sizes.epochs or 5, batch_size)


BENCHMARKS: dict[str, Callable[[Path, Scenario, Sizes, Interpolation], Benchmark]] = {
    "split-digits": split_digits,
    "rotated-mnist": rotated_mnist,
    "split-cifar10": split_cifar10,
    "split-cifar100": split_cifar100,
}


def _split(
    name: str,
    data: ImageData,
    width: int,
    scenario: Scenario,
    sizes: Sizes,
    model: tuple[str, dict[str, Any]],
    *,
    epochs: int,
    batch_size: int,
) -> Benchmark:
    count = min(sizes.tasks or data.classes, data.classes // width)
    classes = [list(range(width * task, width * (task + 1))) for task in range(count)]
    batch_size = sizes.batch_size or batch_size
    modules = split_by_class(data, classes, batch_size)
    own = classes if scenario == "task" else None
    return Benchmark(name, data, modules, own, *model, sizes.epochs or epochs, batch_size)
