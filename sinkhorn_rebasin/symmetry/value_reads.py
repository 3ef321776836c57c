"""Values that leave PyTorch in a run that is followed: as lists, arrays and memory, past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.symmetry.rules.registry import Call

# How numbers that Python holds become tensors.
FROM_PYTHON = {
    torch.ops.aten.lift.default,
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.lift_fresh_copy.default,
}
_VALUES = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
# Whoever holds a tensor's memory may read it at any time, or make tensors of it that no operation has returned.
MEMORY = (
    Tensor.__dlpack__,
    Tensor.__reduce_ex__,
    Tensor.data_ptr,
    Tensor.share_memory_,
    Tensor.storage,
    Tensor.untyped_storage,
)


class MemoryLeavesError(RuntimeError):
    """The memory of a tensor is asked for that functionalisation has wrapped, and that has none of its own."""


class ValueReads(TorchFunctionMode):
    """Tells of every tensor whose values or memory Python gets hold of, and gives its real values.

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
        if func is Tensor.__deepcopy__:
            return _deep_copy(*args)
        if func in _VALUES:
            real = _unwrapped(args[0])
            self._read(real)
            args = (real, *args[1:])
        elif func in MEMORY:
            if _is_wrapped(args[0]):
                raise MemoryLeavesError("The memory of a wrapped tensor is asked for.")
            self._read(args[0])
        return func(*args, **(kwargs or {}))


def _deep_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """What ``copy.deepcopy`` makes of a tensor, by operations that are seen."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    copied: Tensor = memo[id(tensor)]
    return copied


def _is_wrapped(tensor: Tensor) -> bool:
    functorch: Any = torch._C._functorch
    return bool(functorch.is_functionaltensor(tensor))


def _unwrapped(tensor: Tensor) -> Tensor:
    """What functionalisation wraps; the wrapper itself holds no values."""
    functorch: Any = torch._C._functorch
    while functorch.is_functionaltensor(tensor):
        torch._sync(tensor)
        tensor = functorch._unwrap_functional_tensor(tensor, False)
    return tensor


def tells_values(call: Call) -> bool:
    """Whether Python sees values of tensors in what comes out: a number, or a shape that depends on them."""
    if torch.Tag.data_dependent_output in call.func.tags:
        return True
    if torch.Tag.dynamic_output_shape not in call.func.tags:
        return False
    if call.func is not torch.ops.aten.index.Tensor:
        return True
    masks = (torch.bool, torch.uint8)
    return any(isinstance(leaf, Tensor) and leaf.dtype in masks for leaf in tree_leaves(call["indices"]))
