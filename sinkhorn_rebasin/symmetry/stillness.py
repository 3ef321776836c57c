"""Watching a run: which tensors it reads, and what it computes when nothing in it is left to chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from sinkhorn_rebasin.symmetry.dispatch import LightDispatchMode


class Readers(LightDispatchMode):
    """Notes which tensors of a state an operation reads."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._state = state
        self._read: Counter[int] = Counter()

    def names(self) -> set[str]:
        """Names of the tensors read so far, and of those without elements."""
        return {name for name, t in self._state.items() if id(t) in self._read or t.numel() == 0}

    def reads(self, name: str) -> int:
        """How many operations have read a tensor."""
        return self._read[id(self._state[name])]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._read.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))


class Operations(LightDispatchMode):
    """Notes which operations run on which tensors of a state, with which numbers: runs of one way have the same."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in state.items()}
        self._seen: list[Any] = []

    def fingerprint(self) -> int:
        """A number that tells runs apart."""
        return hash(tuple(self._seen))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        numbers = (leaf for leaf in args if isinstance(leaf, (bool, int, float)))
        names = (self._names[id(leaf)] for leaf in args if id(leaf) in self._names)
        self._seen.append((str(func), *numbers, *names))
        return func(*args, **(kwargs or {}))


class WriteProtection(LightDispatchMode):
    """Refuses operations that write to the memory of some tensors, and notes that there was one."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._kept = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
        self._protected = {storage._cdata for storage in self._kept}
        self.violated = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            schema = func._schema.arguments
            given = {**dict(zip((argument.name for argument in schema), args, strict=False)), **kwargs}
            written = [given.get(a.name) for a in schema if a.alias_info and a.alias_info.is_write]
            self._check(func, tree_leaves(written))
        return func(*args, **kwargs)

    def _check(self, func: Any, written: Sequence[Any]) -> None:
        for leaf in written:
            strided = isinstance(leaf, Tensor) and leaf.layout == torch.strided
            if strided and leaf.untyped_storage()._cdata in self._protected:
                self.violated = True
                raise RuntimeError(f"{func} writes to a parameter.")


class StillNoise(LightDispatchMode):
    """Random numbers are replaced by constants: dropout keeps everything, noise is one value everywhere.

    Inside another context, which is entered with it.
    """

    def __init__(self, context: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self._context = context
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        self._stack.enter_context(self._context())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return outputs
        name = func.overloadpacket.__name__
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(outputs[1])
        return tree_map(lambda leaf: _still(leaf, name), outputs)


def _still(leaf: Any, name: str) -> Any:
    """A drawn tensor with one value everywhere; drawn integers and orders stay."""
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.fill_(1.0 if name.startswith("bernoulli") else 0.5)
    return leaf
