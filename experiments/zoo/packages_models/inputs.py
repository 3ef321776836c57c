"""Makers of inputs by batch size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WORDS = 99


def noise(*shape: int) -> Callable[[int], Tensor]:
    """Normal numbers of a shape for each sample."""
    return lambda batch: torch.randn(batch, *shape)


def words(length: int = 9, most: int = WORDS) -> Callable[[int], Tensor]:
    """Sentences of a length, of words from 1 to ``most``."""
    return lambda batch: torch.randint(1, most, (batch, length))


def tokens(batch: int) -> dict[str, Tensor]:
    """Sentences as transformers takes them."""
    return {"input_ids": torch.randint(5, 90, (batch, 9))}


def images(size: int = 32, channels: int = 3) -> Callable[[int], Tensor]:
    """Square images."""
    return noise(channels, size, size)


def edges(nodes: int, degree: int = 3) -> Tensor:
    """Edges of a random graph, ``degree`` for every node."""
    return torch.stack([torch.randint(0, nodes, (nodes * degree,)), torch.arange(nodes).repeat(degree)])


def graph(batch: int) -> tuple[Tensor, Tensor]:
    """Nodes with four features, and edges."""
    return torch.randn(4 * batch, 4), edges(4 * batch)
