"""Values that leave PyTorch in a run that is followed: as lists, arrays and memory, past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from sinkhorn_rebasin.networks.function_mode import FunctionMode

# How numbers that Python holds become tensors.
FROM_PYTHON = {
    torch.ops.aten.lift.default,
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.lift_fresh_copy.default,
}
_VALUES = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
# Old constructors, such as torch.FloatTensor, read the items of their lists by these.
_NUMBERS = (Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__bool__, Tensor.__complex__)
# Functions that read integers of tensors among their arguments.
_READERS = (
    torch.tensor_split,
    Tensor.tensor_split,
    torch.ctc_loss,
    torch._VF._pad_packed_sequence,
    torch._VF.gru,
    torch._VF.lstm,
    torch._VF.rnn_relu,
    torch._VF.rnn_tanh,
)
# Functions that make a tensor of the values in lists, which may be tensors of one element.
_MAKERS = (
    torch.tensor,
    torch.as_tensor,
    torch.asarray,
    Tensor.new_tensor,
    Tensor.new,
    torch.sparse_coo_tensor,
    torch.sparse_compressed_tensor,
    torch.sparse_csr_tensor,
    torch.sparse_csc_tensor,
    torch.sparse_bsr_tensor,
    torch.sparse_bsc_tensor,
)
# Whoever holds a tensor's memory may read it at any time, or make tensors of it that no operation has returned.
MEMORY = (
    Tensor.__dlpack__,
    Tensor.__reduce_ex__,
    Tensor.data_ptr,
    Tensor.share_memory_,
    Tensor.storage,
    Tensor.untyped_storage,
)


_TOLD = {Tensor.__deepcopy__, *_VALUES, *_NUMBERS, *_READERS, *_MAKERS, *MEMORY}


class MemoryLeavesError(RuntimeError):
    """Say that memory is asked for without any.

    Functionalization has wrapped the tensor, which has no memory of its own.
    """


class ValueReads(FunctionMode):
    """Tell of every tensor that Python reads.

    Python gets hold of its values or memory. They are the real ones. ``read`` is told of tensors that become lists,
    arrays, memory or items of new tensors, ``made`` of those new tensors.

    >>> seen = []
    >>> with ValueReads(seen.append, lambda tensor: None):
    ...     torch.func.functionalize(lambda x: x * sum(x.tolist()))(torch.ones(2))
    tensor([2., 2.])
    >>> seen
    [tensor([1., 1.])]
    """

    def __init__(self, read: Callable[[Tensor], None], made: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._read = read
        self._made = made

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function with the real values it reads."""
        if func not in _TOLD:
            return func(*args, **kwargs)
        if func is Tensor.__deepcopy__:
            return _deep_copy(*args)
        if func in _MAKERS:
            return self._make(func, args, kwargs)
        if func in _VALUES or func in _NUMBERS:
            args = (self._real(args[0]), *args[1:])
        elif func in _READERS:
            args = [self._real(value) if _is_integer(value) else value for value in args]
        elif func in MEMORY:
            if _is_wrapped(args[0]):
                raise MemoryLeavesError("The memory of a wrapped tensor is asked for.")
            self._read(args[0])
        return func(*args, **kwargs)

    def _real(self, tensor: Tensor) -> Tensor:
        real = unwrapped(tensor)
        self._read(real)
        return real

    def _make(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Make a tensor of lists.

        Items that are tensors are read.
        """
        lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list | tuple)]
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(lists)):
            return func(*args, **kwargs)

        def real(value: Any) -> Any:
            """Replace tensors by their real values."""
            if not isinstance(value, list | tuple):
                return value
            return tree_map(lambda leaf: self._real(leaf) if isinstance(leaf, Tensor) else leaf, value)

        output = func(*map(real, args), **{name: real(value) for name, value in kwargs.items()})
        self._made(unwrapped(output))
        return output


def _is_integer(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()


def _deep_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Copy a tensor by operations that are seen.

    This is what ``copy.deepcopy`` makes of it.
    """
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    copied: Tensor = memo[id(tensor)]
    return copied


def _is_wrapped(tensor: Tensor) -> bool:
    functorch: Any = torch._C._functorch
    return bool(functorch.is_functionaltensor(tensor))


def unwrapped(tensor: Tensor) -> Tensor:
    """Return what functionalization wraps.

    The wrapper itself holds no values.
    """
    functorch: Any = torch._C._functorch
    while functorch.is_functionaltensor(tensor):
        torch._sync(tensor)
        tensor = functorch._unwrap_functional_tensor(tensor, False)
    return tensor
