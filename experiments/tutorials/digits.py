"""What the tutorials share: the digits in batches, and networks trained on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.data import load_digits
from experiments.models.training import train_endpoint

DATA = load_digits()


def train_loader(batch_size: int = 100) -> DataLoader[tuple[Tensor, ...]]:
    """Return the training digits (N, 1, 8, 8) with their labels, shuffled by a seed."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(DATA.train_set(), batch_size, shuffle=True, generator=generator)


def held_out_loader() -> DataLoader[tuple[Tensor, ...]]:
    """Return the last digits of the training set, in order."""
    return DataLoader(TensorDataset(DATA.train_images[-300:], DATA.train_labels[-300:]), 300)


def test_loader() -> DataLoader[tuple[Tensor, ...]]:
    """Return the test digits with their labels."""
    return DataLoader(DATA.test_set(), 500)


test_loader.__test__ = False  # type: ignore[attr-defined]  # its name is no test's


def trained(make: Callable[[], nn.Module], seed: int, epochs: int = 15) -> nn.Module:
    """Return a network trained on the digits; the seed decides its weights and the order of the images."""
    return train_endpoint(make, DATA, seed=seed, epochs=epochs, learning_rate=3e-3, batch_size=100)


def mlp(width: int = 32, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Return a network of two hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, width), activation()),
        *(nn.Linear(width, width), activation()),
        nn.Linear(width, 10),
    )


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """Return the share of test digits that a network gets right."""
    return float((network(DATA.test_images).argmax(1) == DATA.test_labels).float().mean())
