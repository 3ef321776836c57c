"""Two small networks for everything that takes data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.relu(self.n(self.a(x))))
        return out


def networks() -> tuple[Net, Net, sr.PermutationSpec]:
    torch.manual_seed(0)
    a, b = Net().eval(), Net().eval()
    return a, b, sr.discover_symmetry(a, torch.ones(2, 3))
