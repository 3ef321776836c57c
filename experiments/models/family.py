"""Networks of one architecture on one data set, one a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from experiments.compare_methods.setting import Training
from experiments.data import ImageData, load_cifar10, load_digits, load_mnist
from experiments.models import build_model
from experiments.models.endpoints import EndpointConfig, load_or_train

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Say which networks are trained, and on what.

    Attributes:
        title: for tables and pictures.
        data, model, arguments, training: of every network.
        train_images: how many of the data set; None: all.
        held_out: of these, the last, which no network trains on; what is chosen is chosen on them.
        test_images: None: all.
    """

    title: str
    data: Literal["digits", "mnist", "cifar10"]
    model: str
    training: Training
    arguments: Mapping[str, Any] = field(default_factory=dict)
    train_images: int | None = None
    held_out: int = 0
    test_images: int | None = None

    def load(self, root: Path) -> tuple[ImageData, Batches, Batches]:
        """Return the data that networks train on, and batches of held-out and of test images."""
        if self.data == "digits":
            data = load_digits(self.train_images)
        else:
            data = {"mnist": load_mnist, "cifar10": load_cifar10}[self.data](root, self.train_images)
        data, held = data.hold_out(self.held_out)
        tests = data.test_images[: self.test_images], data.test_labels[: self.test_images]
        return data, batches_of(*held), batches_of(*tests)

    def fresh(self) -> nn.Module:
        """Return a freshly initialised network."""
        return build_model(self.model, **self.arguments)

    def network(self, cache: Path, data: ImageData, seed: int) -> nn.Module:
        """Return the trained network of a seed."""
        training = {name: getattr(self.training, name) for name in Training.__dataclass_fields__}
        config = EndpointConfig(model=self.model, seed=seed, arguments=dict(self.arguments), **training)
        return load_or_train(cache, config, data)


def batches_of(images: Tensor, labels: Tensor, size: int = 250) -> Batches:
    """Split images and labels into batches.

    >>> import torch
    >>> [len(labels) for _, labels in batches_of(torch.zeros(5, 1), torch.zeros(5), size=2)]
    [2, 2, 1]
    """
    return list(zip(images.split(size), labels.split(size), strict=True)) if len(labels) else []
