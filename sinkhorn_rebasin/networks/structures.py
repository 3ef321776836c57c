"""Tensors in structures of any kind: finding them, naming them, and putting others in their places."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pickle import PickleError
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import keystr, tree_flatten_with_path

from sinkhorn_rebasin.errors import DataError

Rebuilt: TypeAlias = Callable[[Iterable[Tensor]], Any]
"""Tensors to a structure with them in their places."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_NO_COPY = (TypeError, ValueError, AttributeError, RuntimeError, copy.Error, PickleError)
_CLOSED = (nn.Module, type, FunctionType, ModuleType)


def named_parts(node: Any) -> list[tuple[str, Any]]:
    """List the parts of a container or object.

    They are those at its first level, and how Python writes each.

    Containers are those of PyTorch's pytrees, mappings, tuples, lists and sets. Other objects hold their attributes
    and slots. Networks, types and functions hold nothing.

    >>> @dataclasses.dataclass
    ... class Graph:
    ...     x: int
    >>> named_parts({"graph": Graph(1)}), named_parts(Graph(1))
    ([("['graph']", Graph(x=1))], [('.x', 1)])
    """
    if isinstance(node, (*_PLAIN, *_CLOSED, Tensor)):
        return []
    paths = tree_flatten_with_path(node, is_leaf=lambda part: part is not node)[0]
    if paths and not (len(paths) == 1 and paths[0][1] is node):
        return [(keystr(path), part) for path, part in paths]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        fields: tuple[str, ...] = getattr(node, "_fields")  # noqa: B009 tuples have none
        return [(f".{name}", part) for name, part in zip(fields, node, strict=False)]
    held: list[tuple[str, Any]] = []
    if isinstance(node, Mapping):
        held = [(f"[{key!r}]", node[key]) for key in node]
    elif isinstance(node, (tuple, list, set, frozenset)):
        held = [(f"[{place}]", part) for place, part in enumerate(node)]
    return held + [(f".{name}", part) for name, part in attributes_of(node)]


def attributes_of(node: Any) -> list[tuple[str, Any]]:
    """List what an object holds besides its items.

    They come with their names. Networks, types and functions have none.

    >>> attributes_of(slice(1)), attributes_of(dataclasses.make_dataclass("Point", ["x"])(2))
    ([], [('x', 2)])
    """
    if isinstance(node, _CLOSED):
        return []
    if dataclasses.is_dataclass(node):
        names = [field.name for field in dataclasses.fields(node)]
    else:
        names = [name for kind in type(node).__mro__ for name in _slots_of(kind)]
    own = getattr(node, "__dict__", {})
    return [*((name, getattr(node, name, None)) for name in names if name not in own), *own.items()]


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ()) if "torch" not in kind.__module__.split(".") else ()
    return (slots,) if isinstance(slots, str) else tuple(slots)


def named_tensors_in(structure: Any) -> list[tuple[str, Tensor]]:
    """List every tensor with the path to it.

    Tensors at several places come several times.

    >>> import torch
    >>> named_tensors_in([torch.ones(1), {"mask": torch.ones(2)}])
    [('[0]', tensor([1.])), ("[1]['mask']", tensor([1., 1.]))]
    """
    return [(path, node) for path, node in _nodes(structure) if isinstance(node, Tensor)]


def tensors_in(structure: Any) -> list[Tensor]:
    """List every tensor in a structure.

    It may be a container of any kind, a dataclass, or the attributes of another object.

    >>> import torch
    >>> len(tensors_in((None, {"logits": torch.ones(2), "hidden": [torch.ones(1)]}, "text")))
    2
    """
    return [structure] if isinstance(structure, Tensor) else [t for _, t in named_tensors_in(structure)]


def _nodes(structure: Any) -> list[tuple[str, Any]]:
    """List everything in a structure with its path.

    It goes depth first. Objects that are met again come once.
    """
    found: list[tuple[str, Any]] = []
    seen: dict[int, Any] = {}  # holds what it has seen, so that no identity is given twice
    waiting = [("", structure)]
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            continue
        found.append((path, node))
        if not isinstance(node, (*_PLAIN, Tensor)):
            seen[id(node)] = node
            waiting.extend((path + name, part) for name, part in reversed(named_parts(node)))
    return found


def shape_of(tensor: Tensor) -> tuple[Any, ...]:
    """Return the shape of a tensor.

    Of a nested one these are its parts' shapes.

    >>> import torch
    >>> shape_of(torch.ones(2, 3))
    (2, 3)
    """
    if tensor.is_nested:
        return tuple(tuple(part.shape) for part in tensor.unbind())
    return tuple(tensor.shape)


def holds_nothing(structure: Any) -> bool:
    """Tell whether a structure is empty for networks.

    It then has no tensor, number, text or array that one could run on.

    >>> holds_nothing({"x": [None]}), holds_nothing(["text"])
    (True, False)
    """
    return not any(_is_something(node) for _, node in _nodes(structure))


def _is_something(node: Any) -> bool:
    if isinstance(node, Tensor):
        return True
    if node is None or isinstance(node, (Mapping, tuple, list, set, frozenset)):
        return False
    return not hasattr(node, "__dict__") and type(node) is not object


def flattened(structure: Any) -> tuple[list[Tensor], Rebuilt]:
    """Take a structure apart into its tensors.

    Returns its tensors, and a function that makes a copy with others in their places.

    Copies are deep, so that what is written to an object stays in the copy. Networks in the structure, and what
    cannot be copied and holds no tensor, such as locks, are the same in the copy. The lengths in a packed sequence
    are not replaced: they say what its tensors mean.

    >>> import torch
    >>> tensors, rebuilt = flattened({"x": torch.ones(2), "flag": True})
    >>> rebuilt(tensor + 1 for tensor in tensors)
    {'x': tensor([2., 2.]), 'flag': True}
    """
    nodes = [node for _, node in _nodes(structure)]
    tensors = [node for node in nodes if isinstance(node, Tensor)]
    shared = {id(node): node for node in nodes if isinstance(node, nn.Module)}
    lengths = [node.batch_sizes for node in nodes if isinstance(node, PackedSequence)]

    def rebuilt(others: Iterable[Tensor]) -> Any:
        """Copy the structure with other tensors."""
        memo: dict[int, Any] = {id(own): other for own, other in zip(tensors, others, strict=True)}
        return _copied(structure, memo | {id(own): own.clone() for own in lengths} | shared, nodes)

    return list(tensors), rebuilt


def _copied(structure: Any, memo: dict[int, Any], nodes: list[Any]) -> Any:
    """Copy a structure deeply, replacing some objects.

    Those that have no tensor and cannot be copied stay.
    """
    try:
        return copy.deepcopy(structure, dict(memo))
    except _NO_COPY as error:
        kept = {id(node): node for node in nodes if _is_opaque(node)}
        if kept.keys() <= memo.keys():
            raise DataError(
                f"Expected inputs that copy.deepcopy can copy, so that they stay as they are, but got "
                f"{type(structure).__name__}, which raised {type(error).__name__}: {error}. Give what cannot be "
                f"copied a __deepcopy__, or pass its tensors."
            ) from error
        return _copied(structure, memo | kept, nodes)


def _is_opaque(node: Any) -> bool:
    """Tell whether an object without tensors cannot be copied."""
    if isinstance(node, (*_PLAIN, Tensor)) or tensors_in(node):
        return False
    try:
        copy.deepcopy(node)
    except _NO_COPY:
        return True
    return False


def replaced(structure: Any, made: Callable[[Tensor], Any]) -> Any:
    """Copy a structure with every tensor replaced.

    Each is replaced by what is made of it.

    >>> import torch
    >>> replaced((torch.ones(2), ["text"]), torch.zeros_like)
    (tensor([0., 0.]), ['text'])
    """
    if isinstance(structure, Tensor):
        return made(structure)
    tensors, rebuilt = flattened(structure)
    return rebuilt([made(tensor) for tensor in tensors])
