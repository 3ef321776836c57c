"""The base task and the new one: the same images turned, in other colours or blurred, or text of another kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.carry.setting import Setting
from experiments.data import ImageData, load_cifar10, load_mnist, load_source_text
from experiments.data.rotation import rotated
from experiments.data.source_text import VOCABULARY, encoded

DEGREES = 45.0
Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Hold one task's training, held-out and test samples with labels."""

    data: ImageData
    held_out: Labelled
    test: Labelled

    @property
    def train(self) -> Labelled:
        """Return the training samples with their labels."""
        return self.data.train_images, self.data.train_labels


def load_tasks(setting: Setting, root: Path) -> tuple[Task, Task]:
    """Return the base task and the new one; each `setting.every` test samples one is held out."""
    load: dict[str, Callable[[], ImageData]] = {
        "mnist": lambda: load_mnist(root, setting.train_images),
        "cifar10": lambda: load_cifar10(root, setting.train_images),
        "source_text": load_source_text,
    }
    data = load[setting.data]()
    new = prose() if setting.change == "prose" else changed(data, setting.change)
    return _task(data, setting), _task(new, setting)


def changed(data: ImageData, change: str) -> ImageData:
    """Return the images turned by 45 degrees, in other colours, or blurred with noise."""
    images = [CHANGES[change](each) for each in (data.train_images, data.test_images)]
    return replace(data, train_images=images[0], test_images=images[1], name=f"{data.name}-{change}")


def swapped_colors(images: Tensor) -> Tensor:
    """Return images with their channels in another order and inverted.

    Example:
        >>> swapped_colors(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)).flatten().tolist()
        [-3.0, -1.0, -2.0]
    """
    return -images[:, [2, 0, 1]]


def blurred(images: Tensor, deviation: float = 0.3) -> Tensor:
    """Return images averaged over 5 x 5 pixels, with noise; always the same for the same images."""
    generator = torch.Generator().manual_seed(len(images))
    noise = torch.randn(images.shape, generator=generator)
    return F.avg_pool2d(F.pad(images, (2,) * 4, mode="reflect"), 5, 1) + deviation * noise


def prose(context: int = 64) -> ImageData:
    """Return windows of Python's reference in words, as `pydoc` shows it; test windows are of other topics."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    parts = [[n for i, n in enumerate(names) if (i % 5 == 0) == held] for held in (False, True)]
    windows = []
    for part in parts:
        tokens = torch.cat([encoded(str(topics[name])) for name in part])
        windows.append(tokens.unfold(0, context + 1, context).contiguous())
    train, test = windows
    return ImageData(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:], VOCABULARY, "prose")


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "turned": lambda images: rotated(images, DEGREES, "bilinear"),
    "colors": swapped_colors,
    "blur": blurred,
}


def _task(data: ImageData, setting: Setting) -> Task:
    held = torch.arange(len(data.test_labels)) % setting.every == 0
    images, labels = data.test_images, data.test_labels
    tested = images[~held][: setting.most_tested], labels[~held][: setting.most_tested]
    return Task(data, (images[held], labels[held]), tested)
