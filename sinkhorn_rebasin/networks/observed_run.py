"""Watching a run: which tensors it reads, and what it computes when nothing in it is left to chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.dispatched_call import Call, tells_values
from sinkhorn_rebasin.networks.shared_memory import storage_key
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.networks.value_reads import FROM_PYTHON

# Operations whose numbers are lengths, which follow from those of their tensors.
_SIZES_ALONE = {"_unsafe_view", "empty", "expand", "new_zeros", "split_with_sizes", "view", "zeros"}
# Operations that take no more from a tensor than its shape and kind.
_KIND_ALONE = {f"{value}_like" for value in ("empty", "full", "ones", "rand", "randint", "randn", "zeros")}
_KIND_ALONE |= {f"new_{value}" for value in ("empty", "empty_strided", "full", "ones", "zeros")}
TELLING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Marks of operations that give numbers or lengths, which values decide."""
# How many elements of a tensor tell it apart from others.
LARGEST_DIGESTED = 1 << 20


class TensorReads(DispatchMode):
    """Note which tensors an operation reads.

    The tensors are those of a state.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._state = state
        self._read: Counter[int] = Counter()

    def names(self) -> set[str]:
        """Name the tensors read so far.

        Those without elements are among them.
        """
        return {name for name, t in self._state.items() if id(t) in self._read or t.numel() == 0}

    def reads(self, name: str) -> int:
        """Count the operations that read a tensor."""
        return self._read[id(self._state[name])]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._read.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))


class GivenTensors(DispatchMode):
    """Note the tensors that a run is given.

    They are all that its operations read and none of them has made. What a run has made of numbers alone, and
    somebody still holds, is given to all runs that follow. Numbers that it has after it has read values may have been
    chosen by them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: TensorTable[bool] = TensorTable()  # with whether it was made of numbers alone
        self._given: TensorTable[bool] = TensorTable()
        self._computed: set[int] = set()  # memory that holds something else
        self._has_read = False
        self.tensors: list[Tensor] = []

    def kept(self) -> list[Tensor]:
        """List tensors of numbers that still live.

        Operations made them of numbers alone, as in a table of what was computed.
        """
        alive = [tensor for tensor, of_numbers in list(self._made.items()) if of_numbers]
        return [tensor for tensor in alive if storage_key(tensor) not in self._computed]

    def note_read(self, tensor: Tensor) -> None:
        """Note that values leave for Python.

        Those of a tensor that is made of numbers tell it nothing new.
        """
        self._has_read |= not self._made.get(tensor, False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if TELLING & set(func.tags) and tells_values(Call.bind(func, args, kwargs or {}, outputs)):
            for tensor in tensors:
                self.note_read(tensor)
        if func in FROM_PYTHON:
            for tensor in tensors:
                self._note_made(tensor, not self._has_read, ())
        for tensor in tensors:
            if tensor not in self._made and tensor not in self._given:
                self._given[tensor] = True
                self.tensors.append(tensor)
        self._note(func, leaves)
        read = () if func.overloadpacket.__name__ in _KIND_ALONE else tensors
        of_numbers = not self._has_read and all(self._made.get(tensor, False) for tensor in read)
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor) and leaf not in self._given:
                self._note_made(leaf, of_numbers, tensors)
        return outputs

    def _note_made(self, tensor: Tensor, of_numbers: bool, operands: Sequence[Tensor]) -> None:
        self._made[tensor] = of_numbers
        memory = storage_key(tensor)
        if not of_numbers:
            self._computed.add(memory)
        elif all(storage_key(operand) != memory for operand in operands):
            self._computed.discard(memory)  # new memory, at the place of some that is no more

    def _note(self, func: Any, leaves: Sequence[Any]) -> None:
        """Note what else counts of an operation."""


class RunFingerprint(GivenTensors):
    """Note which operations run on what.

    Runs of one way have the same operations, numbers and given tensors. Tensors of the state count by name, inputs
    not at all, and others that the run is given by their values: a network that chooses one of two masks by its data
    goes one of two ways.
    """

    def __init__(self, state: Mapping[str, Tensor], inputs: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._names: dict[int, Any] = {id(tensor): name for name, tensor in state.items()}
        self._names |= {id(tensor): None for tensor in inputs}
        self._values: TensorTable[Any] = TensorTable()
        self._copies: TensorTable[Any] = TensorTable()
        self._seen: list[Any] = []

    def fingerprint(self) -> int:
        """Return a number that tells runs apart."""
        return hash(tuple(self._seen))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.clone.default and (args[0] in self._given or args[0] in self._copies):
            # A run has copies of the buffers that it is given, in case that it writes to them.
            self._copies[outputs] = self._described(args[0])
        return outputs

    def _note(self, func: Any, leaves: Sequence[Any]) -> None:
        name = func.overloadpacket.__name__
        numbers = (
            leaf for leaf in leaves if isinstance(leaf, (bool, int, float)) and name not in _SIZES_ALONE
        )
        tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor))
        given = (tensor for tensor in tensors if tensor in self._given or tensor in self._copies)
        self._seen.append((str(func), *numbers, *map(self._described, given)))

    def _described(self, tensor: Tensor) -> Any:
        if tensor in self._copies:
            return self._copies[tensor]
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        if tensor not in self._values:
            self._values[tensor] = _digest(tensor)
        return self._values[tensor]


def _digest(tensor: Tensor) -> Any:
    """Return what tells two tensors' values apart.

    Of large tensors a part is read.
    """
    kind = (tuple(tensor.shape), str(tensor.dtype))
    if tensor.layout != torch.strided or tensor.is_quantized:
        return kind
    part = tensor.detach().reshape(-1)[:LARGEST_DIGESTED].cpu()
    part = torch.view_as_real(part).contiguous() if part.is_complex() else part.contiguous()
    return (*kind, hash(part.view(torch.uint8).numpy().tobytes()))
