"""Values that leave PyTorch in a run that is followed: as lists and arrays, past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_READS = (Tensor.tolist, Tensor.numpy, Tensor.__array__)


class ValueReads(TorchFunctionMode):
    """Tells of every tensor whose values are read by ``tolist`` or ``numpy``, and gives its real values.

    >>> seen = []
    >>> with ValueReads(seen.append):
    ...     torch.func.functionalize(lambda x: x * sum(x.tolist()))(torch.ones(2))
    tensor([2., 2.])
    >>> seen
    [tensor([1., 1.])]
    """

    def __init__(self, read: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._read = read

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _READS:
            real = _unwrapped(args[0])
            self._read(real)
            args = (real, *args[1:])
        return func(*args, **(kwargs or {}))


def _unwrapped(tensor: Tensor) -> Tensor:
    """What functionalisation wraps; the wrapper itself holds no values."""
    functorch: Any = torch._C._functorch
    while functorch.is_functionaltensor(tensor):
        torch._sync(tensor)
        tensor = functorch._unwrap_functional_tensor(tensor, False)
    return tensor
