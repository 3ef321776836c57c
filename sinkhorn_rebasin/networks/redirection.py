"""Functions inside of copied networks, which copy.deepcopy leaves alone, led to the copy."""

from __future__ import annotations

import copy
import functools
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin.networks.reachable import LruCache, parts_of

_SKIPPED = {bool, int, float, complex, str, bytes, type(None), Tensor, nn.Parameter}
_TABLES = {dict, OrderedDict, list, set}
_LEAVES = (bool, int, float, complex, str, bytes, type(None), Tensor, type, ModuleType)


def redirect(twin: nn.Module, memo: dict[int, Any], given: Iterable[Any] = ()) -> None:
    """Lead a copy's references to the copy.

    They are functions and weak references inside of it, where they reach the original.

    Args:
        twin: what ``copy.deepcopy(original, memo)`` gave.
        memo: what it noted: the copy of each object by the object's id.
        given: what is in the memo and no copy; it is not changed.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(2, 2)
    ...         self.head = lambda: self.layer
    >>> memo, net = {}, Net()
    >>> twin = copy.deepcopy(net, memo)
    >>> twin.head() is net.layer
    True
    >>> redirect(twin, memo)
    >>> twin.head() is twin.layer
    True
    """
    _Redirection(memo, given).of(twin)


class _Redirection:
    def __init__(self, memo: dict[int, Any], given: Iterable[Any]) -> None:
        self._memo = memo
        self._given = {id(value) for value in given}
        self._note_copies()
        self._done: dict[int, Any] = {}
        self._cells: dict[int, CellType] = {}
        self._apart: set[int] = set()
        self._alive: list[Any] = []  # an id is an object's own only while it lives

    def _note_copies(self) -> None:
        kept = id(self._memo)  # where deepcopy keeps originals alive
        self._copies = {id(value) for key, value in self._memo.items() if key != kept} - self._given

    def of(self, value: Any) -> Any:
        """Return a value as the copy should hold it.

        What was copied is changed in place.
        """
        if type(value) in _SKIPPED or isinstance(value, _LEAVES):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        self._alive.append(value)
        self._done[id(value)] = value
        self._done[id(value)] = self._made(value)
        return self._done[id(value)]

    def _made(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            return self._function(value)
        if type(value) is weakref.ref:
            target = value()
            return value if target is None or not self._was_copied(target) else weakref.ref(self._new(target))
        if isinstance(value, LruCache):
            inside = self.of(value.__wrapped__)
            again = functools.lru_cache(**value.cache_parameters())
            return value if inside is value.__wrapped__ else again(inside)
        if type(value) is MethodType:
            function, owner = self.of(value.__func__), self.of(value.__self__)
            same = function is value.__func__ and owner is value.__self__
            return value if same else MethodType(function, owner)
        if type(value) is partial:
            function, arguments = self.of(value.func), self.of(value.args)
            keywords = {name: self.of(part) for name, part in value.keywords.items()}
            same = all(part is keywords[name] for name, part in value.keywords.items())
            same = same and function is value.func and arguments is value.args
            return value if same else partial(function, *arguments, **keywords)
        if isinstance(value, tuple):
            items = [self.of(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return value._make(items) if hasattr(value, "_make") else type(value)(items)
        if id(value) in self._copies:  # others belong to somebody else
            self._change(value)
        return value

    def _change(self, value: Any) -> None:
        """Redirect what an object of the copy holds."""
        if isinstance(value, dict):
            for key, item in list(value.items()):
                kind = type(item)
                if kind in _SKIPPED or (kind in _TABLES and not item and not getattr(item, "__dict__", None)):
                    continue
                new = self.of(item)
                if new is not item:
                    value[key] = new
        elif isinstance(value, list):
            for place, item in enumerate(value):
                new = self.of(item)
                if new is not item:
                    value[place] = new
        elif isinstance(value, set):
            items = [(item, self.of(item)) for item in value]
            for item, new in items:
                if new is not item:
                    value.remove(item)
                    value.add(new)
        if hasattr(value, "__dict__"):
            self._change(vars(value))

    def _function(self, function: FunctionType) -> FunctionType:
        if id(function) in self._memo:
            return self._new(function)
        if not self._reaches(function):
            return function
        cells = function.__closure__
        made = FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            closure=None if cells is None else tuple(self._cell(cell) for cell in cells),
        )
        self._done[id(function)] = made  # it may reach itself
        for cell in cells or ():
            self._fill(cell)
        if function.__defaults__ is not None:
            made.__defaults__ = tuple(self._content(value) for value in function.__defaults__)
        made.__kwdefaults__ = {
            k: self._content(v) for k, v in (function.__kwdefaults__ or {}).items()
        } or None
        for name in ("__qualname__", "__module__", "__doc__", "__annotations__"):
            setattr(made, name, getattr(function, name))
        vars(made).update({name: self._content(value) for name, value in vars(function).items()})
        return made

    def _cell(self, cell: CellType) -> CellType:
        if id(cell) not in self._cells:
            self._alive.append(cell)
            self._cells[id(cell)] = CellType()
        return self._cells[id(cell)]

    def _fill(self, cell: CellType) -> None:
        made = self._cells[id(cell)]
        try:
            value = cell.cell_contents
        except ValueError:  # a variable that is not set yet
            return
        try:
            made.cell_contents  # noqa: B018
        except ValueError:
            made.cell_contents = None  # it may reach itself
            made.cell_contents = self._content(value)

    def _content(self, value: Any) -> Any:
        """Return the stand-in for a function's value."""
        if self._was_copied(value):
            return self._new(value)
        if isinstance(value, (FunctionType, weakref.ref)):
            return self.of(value)
        if not self._reaches(value):
            return value
        new = copy.deepcopy(value, self._memo)
        self._note_copies()
        return self.of(new)

    def _was_copied(self, value: Any) -> bool:
        return id(value) in self._memo and self._memo[id(value)] is not value

    def _new(self, value: Any) -> Any:
        return self._memo[id(value)]

    def _reaches(self, value: Any) -> bool:
        """Tell whether a value leads to anything copied."""
        seen: dict[int, Any] = {}
        waiting = [value]
        while waiting:
            leaf = waiting.pop()
            if id(leaf) in seen or id(leaf) in self._apart:
                continue
            if self._was_copied(leaf):
                return True
            seen[id(leaf)] = leaf
            if not isinstance(leaf, _LEAVES):
                waiting.extend(parts_of(leaf))
        self._apart.update(seen)
        self._alive.extend(seen.values())
        return False
