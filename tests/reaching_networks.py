"""Networks that reach their own layers or weights in ways that copying may miss."""

from __future__ import annotations

import functools
import weakref
from collections import UserDict, namedtuple
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = namedtuple("Pair", ["weight", "bias"])


class Base(nn.Module):
    """Two hidden layers; subclasses say how the head is reached."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.prepare()

    def prepare(self) -> None:
        """Keep what the head needs."""

    def head(self, hidden: Tensor) -> Tensor:
        """What is made of the hidden units."""
        return self.c(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu())


def _prepared(prepare: Callable[[Any], None]) -> type[Base]:
    return type("Reaching", (Base,), {"prepare": prepare})


def _set(name: str, make: Callable[[Any], Any]) -> type[Base]:
    return _prepared(lambda net: object.__setattr__(net, name, make(net)))


class Holder:
    """An object that holds a network and calls its head."""

    def __init__(self, net: Base) -> None:
        self.net = net

    def run(self, hidden: Tensor) -> Tensor:
        return self.net.c(hidden)


class Shared(Holder):
    """A holder that copies share, and so reaches the original from all of them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self


def _recursive(net: Base) -> Callable[..., Tensor]:
    def run(hidden: Tensor, times: int = 2) -> Tensor:
        return net.c(hidden) if times == 0 else run(hidden, times - 1)

    return run


def _counting(net: Base) -> Callable[[Tensor], Tensor]:
    count = 0

    def run(hidden: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return net.c(hidden)

    return run


def _keyword(net: Base) -> Callable[..., Tensor]:
    def run(hidden: Tensor, *, layer: nn.Module = net.c) -> Tensor:
        return layer(hidden)

    return run


@torch.no_grad()
def _decorated(net: Base) -> Callable[[Tensor], Tensor]:
    return torch.enable_grad()(lambda hidden: net.c(hidden))


def _hook(net: Base) -> None:
    net.gain = nn.Parameter(torch.rand(8) + 0.5)
    net.a.register_forward_hook(lambda module, inputs, output: output * net.gain)


def _keyword_hook(net: Base) -> None:
    net.gain = nn.Parameter(torch.rand(6) + 0.5)
    net.c.register_forward_pre_hook(lambda m, args, kwargs: ((args[0] * net.gain,), kwargs), with_kwargs=True)


def _replaced_forward(net: Base) -> None:
    plain = net.c.forward
    net.c.forward = lambda hidden: 2 * plain(hidden) + net.b.bias[:3]


class InLists(Base):
    """Reads its weights from lists, dicts and tuples."""

    def prepare(self) -> None:
        self.weights, self.rest = [self.a.weight, self.a.bias], {"b": (self.b.weight, self.b.bias)}
        self.named = Pair(self.c.weight, self.c.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(F.linear(x, *self.weights).relu(), *self.rest["b"]).relu()
        return F.linear(hidden, self.named.weight, self.named.bias)


class View(nn.Module):
    """Decodes by a view of the weight that encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 8)
        self.decode = self.encode.weight.detach().t()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(x).relu(), self.decode)


class Parts(nn.Module):
    """Reads rows of its weights by views in a list, and the whole of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.rows = list(self.b.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x).relu()
        return self.b(hidden) + torch.stack([hidden @ row for row in self.rows], -1)


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "lambda": _set("head", lambda net: lambda hidden: net.c(hidden)),
    "lambda of a layer": _set("head", lambda net: (lambda layer: lambda hidden: layer(hidden))(net.c)),
    "lambda of weights": _set(
        "head", lambda net: (lambda w: lambda h: F.linear(h, *w))([*net.c.parameters()])
    ),
    "function in a list": _set("heads", lambda net: [lambda hidden: net.c(hidden)]),
    "function in a dict of tuples": _set("heads", lambda net: {"c": (lambda hidden: net.c(hidden), 1)}),
    "default": _set("head", lambda net: lambda hidden, layer=net.c: layer(hidden)),
    "keyword default": _set("head", _keyword),
    "recursive function": _set("head", _recursive),
    "function that counts": _set("head", _counting),
    "decorated function": _set("head", _decorated),
    "partial of a function": _set(
        "head", lambda net: functools.partial(lambda scale, h: scale * net.c(h), 2.0)
    ),
    "partial of a layer": _set(
        "head", lambda net: functools.partial(F.linear, **dict(net.c.named_parameters()))
    ),
    "remembered function": _set("head", lambda net: functools.lru_cache(lambda hidden: net.c(hidden))),
    "bound method": _set("head", lambda net: net.c.forward),
    "method of an object": _set("head", lambda net: Holder(net).run),
    "closure over an object": _set("head", lambda net: (lambda holder: lambda h: holder.run(h))(Holder(net))),
    "weak reference": _set("head", lambda net: (lambda ref: lambda h: ref()(h))(weakref.ref(net.c))),
    "mapping of another kind": _set("heads", lambda net: UserDict(c=lambda hidden: net.c(hidden))),
    "hook": _prepared(_hook),
    "hook with keywords": _prepared(_keyword_hook),
    "forward replaced": _prepared(_replaced_forward),
    "weights in lists": InLists,
    "view": View,
    "views in a list": Parts,
}
"""Those that copies are right of."""


def _heads(net: Any, hidden: Tensor) -> Tensor:
    heads = net.heads
    head = heads[0] if isinstance(heads, list) else heads["c"]
    return (head[0] if isinstance(head, tuple) else head)(hidden)


for _name in ("function in a list", "function in a dict of tuples", "mapping of another kind"):
    RIGHT[_name].head = _heads  # type: ignore[attr-defined]

GLOBAL: dict[str, nn.Module] = {}


class Global(Base):
    """Reads its head from a variable of this file."""

    def prepare(self) -> None:
        GLOBAL["c"] = self.c

    def head(self, hidden: Tensor) -> Tensor:
        return GLOBAL["c"](hidden)


def local_class() -> nn.Module:
    """A network whose class reads a variable of the function that it was made in."""
    layer = nn.Linear(6, 3)

    class Local(Base):
        def prepare(self) -> None:
            self.c = layer

        def head(self, hidden: Tensor) -> Tensor:
            return layer(hidden)

    return Local()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "object that copies share": (_set("head", lambda net: Shared(net).run), "'head'"),
    "variable of a file": (Global, "a function or variable that it uses reads 'c."),
    "variable of a function": (local_class, "a function or variable that it uses reads 'c."),
}
"""Those that are refused, and what the error says."""
