"""Every tensor that a network holds, in attributes, hooks and closures too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin.networks.outputs import attributes_of


def reachable_tensors(model: nn.Module) -> list[Tensor]:
    """List the tensors that a network's code can reach from it.

    Those are parameters, buffers, and tensors in attributes, containers, objects, closures, defaults and partial
    functions. Variables of Python modules are not among them.

    >>> layer, table = nn.Linear(2, 2, bias=False), torch.ones(3)
    >>> layer.scale = lambda x: x * table
    >>> len(reachable_tensors(layer))
    2
    """
    found: list[Tensor] = []
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        leaf = waiting.pop()
        if id(leaf) in seen or isinstance(leaf, _PLAIN):
            continue
        seen.add(id(leaf))
        if isinstance(leaf, Tensor):
            found.append(leaf)
        else:
            waiting.extend(_inside(leaf))
    return found


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _inside(leaf: Any) -> Iterator[Any]:
    if isinstance(leaf, dict):
        yield from leaf.values()
    elif isinstance(leaf, (list, tuple, set, frozenset)):
        yield from leaf
    elif isinstance(leaf, FunctionType):
        yield from (cell.cell_contents for cell in leaf.__closure__ or () if _is_filled(cell))
        yield from leaf.__defaults__ or ()
        yield from (leaf.__kwdefaults__ or {}).values()
    elif isinstance(leaf, MethodType):
        yield from (leaf.__self__, leaf.__func__)
    elif isinstance(leaf, partial):
        yield from (leaf.func, leaf.args, leaf.keywords)
    elif isinstance(leaf, nn.Module):
        yield from vars(leaf).values()
    else:
        yield from attributes_of(leaf)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that is not set yet
        return False
    return True
