"""Runs that must not write to tensors they share with the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.dispatched_call import Call, writes, written_names
from sinkhorn_rebasin.networks.function_mode import FunctionMode
from sinkhorn_rebasin.networks.shared_memory import storage_key
from sinkhorn_rebasin.networks.value_reads import MEMORY

# Ways past the dispatcher to write to a tensor.
_WRITABLE = {*MEMORY, Tensor.numpy, Tensor.__array__, Tensor.data.__set__}  # type: ignore[attr-defined]


class WriteProtection(DispatchMode):
    """Refuse operations that write to some tensors.

    Operations that hand out their memory are refused, too. That there was one is noted.

    >>> weight = torch.zeros(2)
    >>> protection = WriteProtection([weight])
    >>> try:
    ...     with protection:
    ...         weight.numpy()[0] = 1.0
    ... except RuntimeError:
    ...     protection.violated, weight.tolist()
    (True, [0.0, 0.0])
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._kept = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
        self._protected = {storage._cdata for storage in self._kept}
        self._memory = _MemoryProtection(self.check)
        self.violated = False

    def __enter__(self) -> Any:
        self._memory.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._memory.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if writes(func):
            given = Call.bind(func, args, kwargs, None)
            self.check(func, tree_leaves([given.get(name) for name in written_names(func)]))
        return func(*args, **kwargs)

    def check(self, func: Any, written: Sequence[Any]) -> None:
        """Raise RuntimeError when one of these is protected."""
        for leaf in written:
            strided = isinstance(leaf, Tensor) and leaf.layout == torch.strided
            if strided and storage_key(leaf) in self._protected:
                self.violated = True
                raise RuntimeError(f"{func} writes to a parameter, or may.")


class _MemoryProtection(FunctionMode):
    """Refuse what the dispatcher does not see."""

    def __init__(self, check: Callable[[Any, Sequence[Any]], None]) -> None:
        super().__init__()
        self._check = check

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function, unless it hands out protected memory."""
        if func in _WRITABLE and not torch._C._functorch.is_functionaltensor(args[0]):
            with torch._C.DisableTorchFunction():
                self._check(func, args[:1])
        return func(*args, **kwargs)
