"""Networks and data that the tests of the command name as ``tests.cli.networks:function``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """A perceptron with batch norm."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, 6)
        self.last = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(x)).relu()).relu())


class Other(Small):
    """The same tensors, another class."""


def small() -> Small:
    return Small()


def five_classes() -> Small:
    return Small(classes=5)


def other() -> Other:
    return Other()


def smooth() -> nn.Module:
    """The class of :func:`small` whose function is another."""
    net = Small()
    net.norm.eps = 10.0
    return net


def frozen() -> nn.Module:
    """A network without hidden units."""
    return nn.Linear(4, 3)


def inputs() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(3))


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randn(16, 4, generator=generator), torch.randint(3, (16,), generator=generator))
        for _ in range(2)
    ]


def once() -> object:
    """Batches that can be read once."""
    return iter(batches())


def nothing() -> list[Tensor]:
    return []


def wide_batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(16, 5), torch.zeros(16, dtype=torch.long))]


def breaking() -> Iterator[tuple[Tensor, Tensor]]:
    """A loader that fails at its second batch."""
    yield batches()[0]
    raise KeyError("image")


class Breaking:
    """The same, read anew each time."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return breaking()


def lazily_breaking() -> Breaking:
    return Breaking()


def later_wide() -> list[tuple[Tensor, Tensor]]:
    return [*batches(), *wide_batches()]


def later_label() -> list[tuple[Tensor, Tensor]]:
    return [*batches(), (torch.randn(16, 4), torch.full((16,), 7))]


def failing() -> None:
    raise OSError("no such disk")
