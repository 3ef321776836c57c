"""Tables by tensor that keep no tensor alive."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar
from weakref import ref

from torch import Tensor

Value = TypeVar("Value")
_NOTHING: tuple[Any, Any] = (lambda: None, None)


class TensorTable(MutableMapping[Tensor, Value]):
    """Hold a value for each of some tensors.

    Tensors count by identity, and leave with their last use.

    Note:
        It does what ``WeakTensorKeyDictionary`` of PyTorch does. That one makes a key object for every question, and
        a followed run asks a hundred of them for each operation.

    >>> import torch
    >>> table, weight = TensorTable(), torch.ones(2)
    >>> table[weight] = "weight"
    >>> table[weight], torch.ones(2) in table, len(table)
    ('weight', False, 1)
    >>> del weight
    >>> len(table)
    0
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[ref[Tensor], Value]] = {}

    def __contains__(self, tensor: object) -> bool:
        return self._entries.get(id(tensor), _NOTHING)[0]() is tensor

    def __getitem__(self, tensor: Tensor) -> Value:
        reference, value = self._entries[id(tensor)]
        if reference() is not tensor:
            raise KeyError(id(tensor))
        return value

    def get(self, tensor: Tensor, default: Any = None) -> Any:
        """Return a tensor's value, or a default."""
        reference, value = self._entries.get(id(tensor), _NOTHING)
        return value if reference() is tensor else default

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        key, entries = id(tensor), self._entries
        reference = entries.get(key, _NOTHING)[0]
        if reference() is not tensor:

            def forget(gone: ref[Tensor]) -> None:
                """Drop the entry, unless another tensor has its place."""
                if entries.get(key, _NOTHING)[0] is gone:
                    del entries[key]

            reference = ref(tensor, forget)
        entries[key] = (reference, value)

    def __delitem__(self, tensor: Tensor) -> None:
        self[tensor]
        del self._entries[id(tensor)]

    def __iter__(self) -> Iterator[Tensor]:
        alive = [
            tensor for reference, _ in list(self._entries.values()) if (tensor := reference()) is not None
        ]
        for tensor in alive:
            tensor._fix_weakref()  # type: ignore[attr-defined]  # a tensor that only a graph holds comes back to Python
        return iter(alive)

    def __len__(self) -> int:
        return len(self._entries)
