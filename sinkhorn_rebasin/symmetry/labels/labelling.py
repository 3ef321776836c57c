"""Hold the labels of all tensors of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.symmetry.labels.constants import Constants, constant_labels
from sinkhorn_rebasin.symmetry.labels.experts import BatchedParameters, Layouts
from sinkhorn_rebasin.symmetry.labels.identities import Identities
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.meeting import joined, without_implied
from sinkhorn_rebasin.symmetry.labels.memory import LabelledMemory
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError
from sinkhorn_rebasin.symmetry.labels.relations import Relations


class Labelling:
    """Hold the labels of every tensor of a run.

    A rule asks it for the labels of its operands, relates or fixes their units, and returns the labels of what its
    operation computes. ``parameters`` maps tensor names to the tensors whose axes may be permuted; what comes
    neither from them nor from the inputs is a constant. Random tensors are constants too, unless
    ``noise_is_symmetric`` is set: then all places of a random tensor are alike.

    >>> import torch
    >>> weight = torch.ones(3, 2)
    >>> labelling = Labelling({"weight": weight})
    >>> labelling.labels(weight).units  # five fresh units: three rows, two columns
    array([0, 1, 2, 3, 4])
    >>> labelling.knows(weight), labelling.knows(torch.ones(3))
    (True, False)
    """

    def __init__(self, parameters: Mapping[str, Tensor], layouts: Layouts | None = None) -> None:
        self._layouts = layouts or {}
        self.relations = Relations()
        self.batched = BatchedParameters(self._layouts)
        self.parameter_labels: dict[str, Labels] = {}
        self.noise_is_symmetric = False
        self.constants = Constants()
        self.memory = LabelledMemory(self.relations)
        self.names: TensorTable[str] = TensorTable()
        for name, tensor in parameters.items():
            self.names[tensor] = self.names.get(tensor, name)
        self._places: TensorTable[tuple[Labels, str]] = TensorTable()
        self._identities = Identities(self.relations)

    def __setitem__(self, tensor: Tensor, labels: Labels) -> None:
        self.memory[tensor] = labels

    def knows(self, tensor: Tensor) -> bool:
        """Tell whether a tensor depends on parameters or inputs."""
        return tensor in self.memory or tensor in self.names or self.memory.is_overwritten(tensor)

    def labels(self, tensor: Tensor) -> Labels:
        """Return the labels of any tensor."""
        lost = self.memory.lost(tensor)
        if lost is not None:
            return lost
        if tensor in self.memory:
            return without_implied(self.relations, self.memory[tensor])
        name = self.names.get(tensor)
        if name is None:
            return self._identities.labels(tensor) or constant_labels(tensor)
        axes = [(axis,) for axis, length in enumerate(tensor.shape) if length > 1]
        return self.lay_out(tensor, tuple(tensor.shape), sorted(self._layouts.get(name, axes)))

    def constant_values(self, tensor: Tensor) -> NDArray[Any]:
        """Return the values of a constant.

        Raises:
            NotUnderstoodError: when it is one, or nothing is known of where it comes from.
        """
        if self.knows(tensor) or not self.constants.holds(tensor):
            raise NotUnderstoodError("it depends on values that are not constant")
        return tensor.detach().cpu().numpy()

    def lay_out(self, tensor: Tensor, view: tuple[int, ...], axes: Sequence[tuple[int, ...]]) -> Labels:
        """Give a fresh parameter units over sets of axes."""
        name = self.names[tensor]
        factors = tuple(
            Factor(group, self.relations.new_units(tuple(view[a] for a in group))) for group in axes
        )
        labels = Labels(view, factors).reshaped(tuple(tensor.shape))
        self.parameter_labels[name] = self.memory[tensor] = labels
        if view == tuple(tensor.shape):
            self.batched.register(name, labels, self.relations)
        return labels

    def is_fresh_parameter(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is an unused parameter."""
        return tensor in self.names and tensor not in self.memory

    def meets(self, tensor: Tensor) -> bool:
        """Tell whether a parameter is empty or was met."""
        return tensor in self.memory or tensor.numel() == 0

    def join(self, labels: Sequence[Labels], shape: Sequence[int]) -> Labels:
        """Join the labels of operands, element by element."""
        self.batched.record_meeting(self.relations, labels)
        return joined(self.relations, labels, shape)

    def fix(self, labels: Labels, reason: str) -> None:
        """Fix every unit on a tensor where it is."""
        self.relations.fix(labels.units, reason)

    def fix_when_used(self, tensor: Tensor, labels: Labels, reason: str) -> None:
        """Fix units once an operation reads a tensor."""
        self._places[tensor] = (labels, reason)

    def fix_used(self, tensors: Iterable[Tensor]) -> None:
        """Fix what waits for these tensors' use."""
        for tensor in tensors if self._places else ():
            labels, reason = self._places.pop(tensor, (None, ""))
            if labels is not None:
                self.fix(labels, reason)

    def mark_partial(self, call: Call, operands: Iterable[Tensor]) -> None:
        """Mark units of classes partly on operands."""
        for tensor in operands:
            if tensor in self.memory:
                for factor in self.memory[tensor].factors:
                    self.relations.mark_partial(factor.ids, f"{call.name} acts on part of the units")

    def former_view(self, tensor: Tensor) -> Tensor:
        """Keep a view with a tensor's present strides."""
        former = tensor.detach()
        if self.knows(tensor):
            self.memory[former] = self.labels(tensor)
        return former
