"""Networks that run layers again in the backward pass, in several ways, and the same networks without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts

Way = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Five layers with tanh, of which a function says how those in the middle are run."""

    def __init__(self, way: Way | None = None) -> None:
        super().__init__()
        self.way = way
        self.first, self.last = nn.Linear(4, 6), nn.Linear(5, 3)
        self.middle = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        if self.way is None:
            return self.last(self.middle(self.first(x).tanh()))
        return self.way(self, x)


class _Reversed(torch.autograd.Function):
    """What reversible networks do: run a layer again in the backward pass, and call ``backward`` on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer, ctx.x = layer, x.detach()
        with torch.no_grad():
            return layer(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        x = ctx.x.requires_grad_()
        with torch.enable_grad():
            ctx.layer(x).backward(gradient)
        return x.grad, None


def _whole(reentrant: bool) -> Way:
    return lambda net, x: net.last(checkpoint(net.middle, net.first(x).tanh(), use_reentrant=reentrant))


def _each(reentrant: bool) -> Way:
    def run(net: Net, x: Tensor) -> Tensor:
        x = checkpoint(lambda x: net.first(x).tanh(), x, use_reentrant=reentrant)
        x = checkpoint_sequential(net.middle, 2, x, use_reentrant=reentrant)
        return checkpoint(net.last, x, use_reentrant=reentrant)

    return run


def _bare_weights(reentrant: bool) -> Way:
    def run(net: Net, x: Tensor) -> Tensor:
        def middle(x: Tensor) -> Tensor:
            x = F.linear(x, net.middle[0].weight, net.middle[0].bias).tanh()
            return F.linear(x, net.middle[2].weight, net.middle[2].bias).tanh()

        return net.last(checkpoint(middle, net.first(x).tanh(), use_reentrant=reentrant))

    return run


def _selective(net: Net, x: Tensor) -> Tensor:
    def contexts() -> Any:
        return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])

    return net.last(checkpoint(net.middle, net.first(x).tanh(), use_reentrant=False, context_fn=contexts))


def _nested(net: Net, x: Tensor) -> Tensor:
    def inner(x: Tensor) -> Tensor:
        return checkpoint(net.middle[2:], net.middle[:2](x), use_reentrant=False)

    return net.last(checkpoint(inner, net.first(x).tanh(), use_reentrant=False))


def _both(net: Net, x: Tensor) -> Tensor:
    x = checkpoint(net.middle[:2], net.first(x).tanh(), use_reentrant=True)
    return net.last(checkpoint(net.middle[2:], x, use_reentrant=False))


def _reversible(net: Net, x: Tensor) -> Tensor:
    return net.last(_Reversed.apply(_Reversed.apply(net.first(x).tanh(), net.middle[:2]), net.middle[2:]))


WAYS: dict[str, Way] = {
    "whole": _whole(False),
    "each": _each(False),
    "bare weights": _bare_weights(False),
    "selective": _selective,
    "nested": _nested,
    "whole, reentrant": _whole(True),
    "each, reentrant": _each(True),
    "bare weights, reentrant": _bare_weights(True),
    "both": _both,
    "reversible": _reversible,
}
"""Ways to run layers again."""

REENTRANT = {name for name in WAYS if "reentrant" in name or name == "both"}
"""Those that PyTorch differentiates by ``backward`` alone, and only once."""


def networks(way: str | None, seed: int = 0) -> tuple[Net, Net]:
    """Two networks of float64 that run their layers this way, None: once."""
    torch.manual_seed(seed)
    first, second = (Net(WAYS[way] if way else None).double() for _ in range(2))
    return first, second


def data(samples: int = 12) -> tuple[Tensor, Tensor]:
    """Inputs of float64, and labels."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 4, generator=generator, dtype=torch.double)
    return inputs, torch.randint(3, (samples,), generator=generator)
