"""Networks whose parameters are of kinds that layers seldom have: tied, complex, whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """An output layer with the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.out(self.words(tokens).sum(1).tanh())
        return scores


class Waves(nn.Module):
    """A layer of complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.waves, self.out = nn.Parameter(torch.randn(5, 2, dtype=torch.cfloat)), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.out((x.to(self.waves.dtype) @ self.waves.T).imag)
        return scores


class Counting(nn.Module):
    """A parameter of whole numbers, which has no gradient."""

    def __init__(self, times: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)
        self.times = nn.Parameter(torch.tensor(times), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x) * self.times
        return scores


def seeded(kind: type[nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind()


def real_numbers(network: nn.Module) -> Tensor:
    """The real numbers that a network's parameters are made of, tied ones once."""
    parts = [p.detach() for p in network.parameters() if p.is_floating_point() or p.is_complex()]
    parts = [
        torch.cat([p.real.flatten(), p.imag.flatten()]) if p.is_complex() else p.flatten() for p in parts
    ]
    return torch.cat(parts).double()
