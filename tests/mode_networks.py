"""Networks that do something when their mode changes: two layers, of which the first is special."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Linear):
    """Adds a product of two thin matrices to its weight in eval mode, and takes it away in training mode."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = (
            nn.Parameter(torch.randn(2, inputs) / 2),
            nn.Parameter(torch.randn(outputs, 2) / 2),
        )
        self.merged = False

    def train(self, mode: bool = True) -> Adapter:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * self.up @ self.down
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        result = F.linear(x, self.weight, self.bias)
        return result if self.merged else result + x @ self.down.T @ self.up.T


class Folded(nn.Module):
    """Two branches that ``eval()`` folds into one weight, kept as an attribute."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.other = (nn.Linear(inputs, outputs, bias=False) for _ in range(2))
        self.folded: Tensor | None = None

    def train(self, mode: bool = True) -> Folded:
        super().train(mode)
        self.folded = None if mode else (self.one.weight + self.other.weight).detach()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x) if self.folded is None else F.linear(x, self.folded)


class FoldedOnce(Folded):
    """The same, but folded where its flag was set before only, and read wherever the flag says so."""

    def train(self, mode: bool = True) -> FoldedOnce:
        if self.training and not mode:
            self.folded = (self.one.weight + self.other.weight).detach()
        nn.Module.train(self, mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x) if self.training else F.linear(x, self.folded)


class Caching(nn.Linear):
    """Keeps what it made of its weight in the first eval-mode run, in a list."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.made: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.linear(x, self.weight.tanh(), self.bias)
        if not self.made:
            self.made.append(self.weight.tanh())
        return F.linear(x, self.made[0], self.bias)


class CachingAttribute(nn.Linear):
    """Keeps what it made of its weight in the first run, in an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "made"):
            self.made = self.weight.tanh()
        return F.linear(x, self.made, self.bias)


class Averaged(nn.Linear):
    """Swaps its weight for an average in eval mode, and back in training mode."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("average", torch.randn(outputs, inputs) / 2)
        self.swapped = False

    def train(self, mode: bool = True) -> Averaged:
        super().train(mode)
        if mode == self.swapped:
            self.weight.data, self.average = self.average, self.weight.data
            self.swapped = not mode
        return self


class AlwaysOn(nn.Dropout):
    """Dropout that ``eval()`` leaves on."""

    def train(self, mode: bool = True) -> AlwaysOn:
        return super().train(True)


class FrozenNorm(nn.BatchNorm1d):
    """Batch norm that stays in eval mode."""

    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)


def _with(make: Callable[[], nn.Module]) -> Callable[[], nn.Sequential]:
    return lambda: nn.Sequential(make(), nn.Tanh(), nn.Linear(8, 3))


def _spectral() -> nn.Sequential:
    return _with(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)))()


MODE_NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "adapter": _with(lambda: Adapter(4, 8)),
    "folded": _with(lambda: Folded(4, 8)),
    "folded once": _with(lambda: FoldedOnce(4, 8)),
    "caching in a list": _with(lambda: Caching(4, 8)),
    "caching in an attribute": _with(lambda: CachingAttribute(4, 8)),
    "averaged": _with(lambda: Averaged(4, 8)),
    "dropout that stays on": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), AlwaysOn(), nn.Linear(8, 3)),
    "batch norm that stays off": lambda: nn.Sequential(nn.Linear(4, 8), FrozenNorm(8), nn.Linear(8, 3)),
    "spectral norm": _spectral,
    "weight norm": _with(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 8))),
}
"""Networks of 4 inputs, 8 hidden units and 3 outputs."""
