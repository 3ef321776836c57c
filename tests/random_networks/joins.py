"""How the output of a block meets an earlier tensor: sums, products, concatenation, padding, gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Function

JOINS = (
    *(
        "none",
        "none",
        "add",
        "add_in_place",
        "multiply",
        "concat",
        "concat_shuffled",
        "pad_add",
        "project_add",
    ),
    *("into_view", "gate", "stack_max", "weighted", "attend"),
)


def make_join(name: str, width: int, other: int) -> nn.Module | None:
    """A module of (output, earlier), both with their channels behind; None when the earlier one is left out."""
    if name == "none":
        return None
    if name in ("add", "add_in_place", "multiply", "stack_max", "weighted") and width != other:
        name = "project_add"
    return _MAKERS[name](width, other)


def _add_in_place(net: Function, y: Tensor, s: Tensor) -> Tensor:
    y = y.clone()
    y += s
    return y.relu_()


def _pad_add(net: Function, y: Tensor, s: Tensor) -> Tensor:
    """Option A of residual networks: the narrower one is padded with zeros."""
    extra = y.shape[-1] - s.shape[-1]
    before = abs(extra) // 2
    pad = (before, abs(extra) - before)
    return y + F.pad(s, pad) if extra >= 0 else F.pad(y, pad) + s


def _into_view(net: Function, y: Tensor, s: Tensor) -> Tensor:
    y = y.clone()
    k = min(y.shape[-1], s.shape[-1])
    y[..., :k] += s[..., :k]
    return y


def _concat_shuffled(net: Function, y: Tensor, s: Tensor) -> Tensor:
    both = torch.cat([s, y], -1)
    return both.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2) if both.shape[-1] % 2 == 0 else both


def _attend(net: Function, y: Tensor, s: Tensor) -> Tensor:
    """Softmax of the product of two projections over channels."""
    return y * (net.a(s) * y).softmax(-1)


_MAKERS = {
    "add": lambda w, o: Function(lambda net, y, s: y + s),
    "add_in_place": lambda w, o: Function(_add_in_place),
    "multiply": lambda w, o: Function(lambda net, y, s: y * s.sigmoid()),
    "concat": lambda w, o: Function(lambda net, y, s: torch.cat([y, s.tanh()], -1)),
    "concat_shuffled": lambda w, o: Function(_concat_shuffled),
    "pad_add": lambda w, o: Function(_pad_add),
    "project_add": lambda w, o: Function(lambda net, y, s: y + net.a(s), a=nn.Linear(o, w)),
    "into_view": lambda w, o: Function(_into_view),
    "gate": lambda w, o: Function(lambda net, y, s: net.a(s).sigmoid() * y, a=nn.Linear(o, w)),
    "stack_max": lambda w, o: Function(lambda net, y, s: torch.stack([y, s], 1).amax(1)),
    "weighted": lambda w, o: Function(
        lambda net, y, s: torch.lerp(y, s, net.scale.sigmoid()), scale=nn.Parameter(torch.ones(w))
    ),
    "attend": lambda w, o: Function(_attend, a=nn.Linear(o, w)),
}
