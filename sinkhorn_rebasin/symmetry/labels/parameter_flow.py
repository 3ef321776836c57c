"""Follow parameters to the tensors computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.networks.observed_run import TELLING
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.symmetry.labels.origin import Origin


class ParameterFlow:
    """Follows parameters through a run, a bit each.

    A parameter that only meets tensors without elements, as the weight of an expert to which no row went, has told
    nothing of its symmetries.

    >>> import torch
    >>> weight, other = torch.ones(2, 2), torch.ones(2)
    >>> flow = ParameterFlow({"weight": weight, "other": other})
    >>> nothing = torch.ones(0, 2) @ weight
    >>> flow.passes([weight], [nothing])
    >>> flow.loses([weight])
    >>> flow.is_idle(weight), flow.is_idle(other)
    (True, False)
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._bits: TensorTable[int] = TensorTable()
        self._names: dict[int, str] = {}
        for name, tensor in parameters.items():
            if tensor not in self._bits:
                self._bits[tensor] = 2 << len(self._bits)
                self._names[self._bits[tensor]] = name
        self._lost = self._arrived = 0
        self._fixed_by: TensorTable[Origin | None] = TensorTable()
        self.meets_fixed: dict[str, Origin | None] = {}  # parameters and what fixed computed values they meet

    def enters(self, inputs: Iterable[Tensor]) -> None:
        """Add inputs of a run, which share a bit."""
        for tensor in inputs:
            self._bits[tensor] = 1

    def is_constant(self, tensors: Iterable[Tensor]) -> bool:
        """Tell whether no tensor comes from parameters or inputs."""
        return not self._of(tensors)

    def passes(self, operands: Iterable[Tensor], outputs: Sequence[Tensor]) -> None:
        """Pass the bits of operands on to outputs."""
        bits = self._of(operands)
        if bits:
            for output in outputs:
                self._bits[output] = bits | self._bits.get(output, 0)

    def meets(
        self, operands: Sequence[Tensor], output: Tensor, has_units: bool, origin: Origin | None
    ) -> None:
        """Note an output with or without free positions.

        What was computed and has none was fixed by the first operation that left none. Parameters that meet it
        remember this operation.
        """
        before = next((self._fixed_by[tensor] for tensor in operands if tensor in self._fixed_by), None)
        if before is not None:
            for tensor in operands:
                name = self._names.get(self._bits.get(tensor, 0))
                if name is not None:
                    self.meets_fixed.setdefault(name, before)
        bits = self._bits.get(output, 0)
        if not has_units and bits & 1 and bits > 1:  # of inputs and of parameters
            self._fixed_by[output] = before or origin

    def loses(self, operands: Iterable[Tensor]) -> None:
        """Record operands that an operation without elements swallowed."""
        self._lost |= self._of(operands)

    def arrives(self, tensors: Iterable[Tensor]) -> None:
        """Record tensors that are returned or read."""
        self._arrived |= self._of(tensors)

    def is_idle(self, parameter: Tensor) -> bool:
        """Tell whether nothing came of a parameter."""
        return bool(self._bits.get(parameter, 0) & self._lost & ~self._arrived)

    def _of(self, tensors: Iterable[Tensor]) -> int:
        """Unite the bits of tensors."""
        bits = 0
        for tensor in tensors:
            bits |= self._bits.get(tensor, 0)
        return bits


class WatchedTensors:
    """Note which tensors a run reads.

    A tensor is read where it, or what was computed of it alone, meets another tensor or becomes a number: a count of
    calls that only grows is not.

    >>> import torch
    >>> watched, order = WatchedTensors(), torch.tensor([1, 0])
    >>> watched.watch({"order": order})
    >>> watched.note(torch.ops.aten.add.Tensor, [order], more := order + 1)
    >>> sorted(watched.read)
    []
    >>> watched.note(torch.ops.aten.add.Tensor, [more, other := torch.ones(2)], more + other)
    >>> watched.read
    {'order': tensor([1, 0])}
    """

    def __init__(self) -> None:
        self.read: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        self._names: TensorTable[str] = TensorTable()

    def watch(self, tensors: Mapping[str, Tensor]) -> None:
        """Watch these tensors from now on.

        Nothing may write to them.
        """
        for name, tensor in tensors.items():
            self._values[name] = tensor
            self._names[tensor] = name

    def note(self, func: Any, operands: Sequence[Tensor], outputs: Any) -> None:
        """An operation reads tensors and returns others."""
        names = {self._names.get(tensor) for tensor in operands}
        name = names.pop() if len(names) == 1 else None
        made = tree_leaves(outputs)
        if name is None or not all(isinstance(leaf, Tensor) for leaf in made) or TELLING & set(func.tags):
            self.note_values(operands)
            return
        for leaf in made:
            self._names[leaf] = name

    def note_values(self, tensors: Iterable[Tensor]) -> None:
        """Note that values of tensors count."""
        for tensor in tensors:
            name = self._names.get(tensor)
            if name is not None:
                self.read.setdefault(name, self._values[name].detach().clone())
