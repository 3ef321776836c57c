"""Every tensor that a network holds, in attributes, hooks and closures too."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator
from functools import lru_cache, partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin.networks.structures import attributes_of


def reachable_tensors(model: nn.Module) -> list[Tensor]:
    """List the tensors that a network's code reaches.

    Those are parameters, buffers, and tensors in attributes, containers, objects, closures, defaults, partial
    functions and behind weak references. Variables of Python modules are not among them.

    >>> import torch
    >>> layer, table = nn.Linear(2, 2, bias=False), torch.ones(3)
    >>> layer.scale = lambda x, table=table: x * table
    >>> len(reachable_tensors(layer))
    2
    """
    return tensors_reached([model])


def tensors_reached(objects: list[Any], without: Collection[int] = ()) -> list[Tensor]:
    """List the tensors reached from some objects.

    They are reached in the same ways, but not through some, given by id.
    """
    found: list[Tensor] = []
    seen: set[int] = set(without)
    waiting = list(objects)
    while waiting:
        leaf = waiting.pop()
        if type(leaf) in _PLAIN or id(leaf) in seen:
            continue
        seen.add(id(leaf))
        if isinstance(leaf, Tensor):
            found.append(leaf)
        else:
            waiting.extend(parts_of(leaf))
    return found


LruCache: Any = type(lru_cache(lambda: None))
"""The type of functions that remember what they returned."""

_PLAIN = frozenset([bool, int, float, complex, str, bytes, type(None)])
_TABLES = frozenset([dict, list, set, tuple, OrderedDict])


def parts_of(leaf: Any) -> Iterator[Any]:
    """Yield what an object holds at first level.

    It may be a container, a function, a module or something else.
    """
    if isinstance(leaf, nn.Module):
        # Most of what a module holds are flags and empty tables of hooks.
        yield from [
            value
            for value in vars(leaf).values()
            if type(value) not in _PLAIN and (type(value) not in _TABLES or value)
        ]
    elif isinstance(leaf, dict):
        yield from leaf.values()
    elif isinstance(leaf, (list, tuple, set, frozenset)):
        yield from leaf
    elif isinstance(leaf, FunctionType):
        yield from (cell.cell_contents for cell in leaf.__closure__ or () if _is_filled(cell))
        yield from leaf.__defaults__ or ()
        yield from (leaf.__kwdefaults__ or {}).values()
        yield from vars(leaf).values()
    elif isinstance(leaf, MethodType):
        yield from (leaf.__self__, leaf.__func__)
    elif isinstance(leaf, partial):
        yield from (leaf.func, leaf.args, leaf.keywords)
    elif isinstance(leaf, weakref.ref):
        yield leaf()
    elif isinstance(leaf, LruCache):
        yield leaf.__wrapped__
    else:
        yield from (part for _, part in attributes_of(leaf))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that is not set yet
        return False
    return True
