"""Run a network once and label every tensor it computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from sinkhorn_rebasin.networks.dispatch_mode import LightDispatchMode
from sinkhorn_rebasin.networks.dispatched_call import Call, tells_values
from sinkhorn_rebasin.networks.reachable import reachable_tensors
from sinkhorn_rebasin.networks.value_reads import FROM_PYTHON
from sinkhorn_rebasin.permutations.coverage import OUTPUT
from sinkhorn_rebasin.symmetry.labels.constants import Constants, constant_labels
from sinkhorn_rebasin.symmetry.labels.experts import BatchedParameters, Layouts
from sinkhorn_rebasin.symmetry.labels.identities import Identities
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, all_fixed, fixed_labels
from sinkhorn_rebasin.symmetry.labels.meeting import joined, unpinned
from sinkhorn_rebasin.symmetry.labels.memory import LabelledMemory
from sinkhorn_rebasin.symmetry.labels.origin import Origin
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError
from sinkhorn_rebasin.symmetry.labels.parameter_flow import ParameterFlow, WatchedTensors
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.rules import find_rule, movement, shuffling, strided, windows
from sinkhorn_rebasin.symmetry.rules.registry import labels_of_outputs
from sinkhorn_rebasin.symmetry.tracing.call_sites import Origins

# What puts a constant of several values together, of which each may be one value everywhere.
_COMPOSING = {"cat", "constant_pad_nd", "select_scatter", "slice_scatter", "stack"}
_MOVING = tuple(module.__name__ for module in (movement, shuffling, strided, windows))


class Tape(LightDispatchMode):
    """Interprets each ATen operation, as it is dispatched, on the labels of its tensors.

    ``parameters`` maps tensor names to the tensors whose axes may be permuted. Tensors that come neither from
    them nor from the inputs are constants, random ones too unless ``noise_is_symmetric`` is set: then all places
    of a random tensor are alike.
    """

    def __init__(self, parameters: Mapping[str, Tensor], layouts: Layouts | None = None) -> None:
        super().__init__()
        self.relations = Relations()
        self._layouts = layouts or {}
        self.batched = BatchedParameters(self._layouts)
        self.parameter_labels: dict[str, Labels] = {}
        self.noise_is_symmetric = False
        self.origins = Origins()
        self._made_by = WeakTensorKeyDictionary()
        self.names = WeakTensorKeyDictionary()
        self._labels = LabelledMemory(self.relations)
        self._places = WeakTensorKeyDictionary()
        self.constants = Constants()
        self._identities = Identities(self.relations)
        self.flow = ParameterFlow(parameters)
        self.integers = WatchedTensors()
        for name, tensor in parameters.items():
            self.names[tensor] = self.names.get(tensor, name)
        self.branches = False  # whether a run has read a value, so that others may go another way
        self._has_read = False  # whether this run has: what Python makes from now on may depend on it
        self.literals = False  # whether Python made tensors of several numbers of its own
        self.unseen: Origin | None = None  # the first operation that met what was computed out of sight
        self.wanders = False  # whether the last of the ways that were followed still had something to say
        self.ways = 1  # how many ways through the network were followed
        self.trained = False  # whether a run in training mode was among them
        self.missed: list[str] = []  # parameters that no run of a network with branches used

    def begin(self, model: nn.Module, inputs: Sequence[Tensor], integers: Mapping[str, Tensor]) -> None:
        """A run of a network begins; every position of its inputs is fixed, and what reads its integers is noted."""
        self.origins.follow(model)
        self.constants.add_own(reachable_tensors(model))
        self._has_read = False
        self.flow.enters(inputs)
        self.integers.watch(integers)
        for tensor in inputs:
            self._labels[tensor] = all_fixed(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            former = self._former(args[0]) if func is torch.ops.aten.as_strided.default else None
            if func._schema.is_mutable:
                self._labels.take_in(Call.bind(func, args, kwargs, None), self.constants, self.knows)
        outputs = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if former is not None:
                func, args = torch.ops.aten.as_strided.default, (former, *args[1:])
            self._see(func, args, kwargs, outputs)
        return outputs

    def _see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self._find_origin(tensor, func)
        self.integers.note(func, tensors, outputs)
        known = [tensor for tensor in tensors if self.knows(tensor)]
        if (
            known
            or self._has_read
            or (self.noise_is_symmetric and torch.Tag.nondeterministic_seeded in func.tags)
        ):
            self._interpret(Call.bind(func, args, kwargs, outputs), known)
        else:
            self.constants.add_made(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))

    def _find_origin(self, tensor: Tensor, func: Any) -> None:  # func: the operation it is given to, if any
        """Tell constants from tensors that were computed where nothing is seen."""
        if self.knows(tensor) or self.constants.holds(tensor):
            if self._has_read and self.constants.is_foreign(tensor) and not self.knows(tensor):
                self._labels[tensor] = fixed_labels(tensor.shape)
            return
        twin = self._labels.twin(tensor)
        if twin is not None:
            self._labels[tensor] = self._labels[twin]
        elif self._labels.fix_sharing(tensor, "its memory is read in another way"):
            self._labels[tensor] = fixed_labels(tensor.shape)
        elif func in FROM_PYTHON or self.constants.shares_memory(tensor):
            self.literals |= tensor.numel() > 1
            if self._has_read:
                # Numbers that Python hands back may have been chosen by the values it has read.
                self._labels[tensor] = fixed_labels(tensor.shape)
            else:
                self.constants.add_made([tensor])
        else:
            self.unseen = self.unseen or self.origins.here(str(func.overloadpacket) if func else "")
            self._labels[tensor] = fixed_labels(tensor.shape)

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on parameters or inputs."""
        return tensor in self._labels or tensor in self.names or self._labels.is_overwritten(tensor)

    def _former(self, tensor: Tensor) -> Tensor:
        """A view that keeps the strides a tensor has, for when they are changed in place."""
        former = tensor.detach()
        if self.knows(tensor):
            self._labels[former] = self.labels(tensor)
        return former

    def name_of(self, tensor: Tensor) -> str | None:
        """Name of a parameter, None for any other tensor."""
        return self.names.get(tensor)

    def labels(self, tensor: Tensor) -> Labels:
        """Labels of a parameter, an intermediate tensor or a constant."""
        lost = self._labels.lost(tensor)
        if lost is not None:
            return lost
        if tensor in self._labels:
            return unpinned(self.relations, self._labels[tensor])
        name = self.name_of(tensor)
        if name is None:
            return self._identities.labels(tensor) or constant_labels(tensor)
        axes = [(axis,) for axis, length in enumerate(tensor.shape) if length > 1]
        return self.lay_out(tensor, tuple(tensor.shape), sorted(self._layouts.get(name, axes)))

    @property
    def wants_proof(self) -> bool:
        """Whether Python had a say in what was computed, so that what was seen may be true of this run alone."""
        return self.branches or self.literals or self.unseen is not None

    def constant_values(self, tensor: Tensor) -> NDArray[Any]:
        """Values of a tensor that is no function of parameters and inputs.

        Raises:
            NotUnderstoodError: when it is one, or nothing is known of where it comes from.
        """
        if self.knows(tensor) or not self.constants.holds(tensor):
            raise NotUnderstoodError("it depends on values that are not constant")
        return tensor.detach().cpu().numpy()

    def lay_out(self, tensor: Tensor, view: tuple[int, ...], axes: Sequence[tuple[int, ...]]) -> Labels:
        """Give a parameter, seen for the first time, fresh units over these sets of axes of a view of it."""
        name = self.names[tensor]
        factors = tuple(
            Factor(group, self.relations.new_units(tuple(view[a] for a in group))) for group in axes
        )
        labels = Labels(view, factors).reshaped(tuple(tensor.shape))
        self.parameter_labels[name] = self._labels[tensor] = labels
        if view == tuple(tensor.shape):
            self.batched.own(name, labels, self.relations)
        return labels

    def is_fresh_parameter(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter that no operation has used so far."""
        return tensor in self.names and tensor not in self._labels

    def meets(self, tensor: Tensor) -> bool:
        """Whether an operation has met a parameter; one without elements has nothing to meet."""
        return tensor in self._labels or tensor.numel() == 0

    def uses(self, tensor: Tensor) -> bool:
        """Whether an operation has met a parameter, and something came of it."""
        return self.meets(tensor) and not self.flow.is_idle(tensor)

    def join(self, labels: Sequence[Labels], shape: Sequence[int]) -> Labels:
        """Labels of an element-wise function of several tensors."""
        self.batched.meet(self.relations, labels)
        return joined(self.relations, labels, shape)

    def fix(self, labels: Labels, reason: str) -> None:
        """Every unit on a tensor stays where it is."""
        self.relations.fix(labels.units, reason)

    def fix_when_used(self, tensor: Tensor, labels: Labels, reason: str) -> None:
        """The units of some labels stay where they are as soon as an operation reads a tensor, or it is returned."""
        self._places[tensor] = (labels, reason)

    def _fix_used(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            labels, reason = self._places.pop(tensor, (None, ""))
            if labels is not None:
                self.fix(labels, reason)

    def note_read(self, tensor: Tensor) -> None:
        """Values of a tensor leave for Python: the network may branch on them, and do anything with their order."""
        self._find_origin(tensor, None)
        if self.knows(tensor):
            self.branches = self._has_read = True
            self.flow.arrives([tensor])
            self._fix_used([tensor])
            self.fix(self.labels(tensor), "its values are read as a list or an array")

    def note_made(self, tensor: Tensor) -> None:
        """Python has made a tensor of values that it has read."""
        self._labels[tensor] = all_fixed(tensor)

    def fix_outputs(self, outputs: Any) -> None:
        """The network's outputs are read position by position."""
        leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        self.flow.arrives(leaves)
        for leaf in leaves:
            self._find_origin(leaf, None)
            if self.knows(leaf):
                self.relations.origin = self._made_by.get(leaf)
                self._fix_used([leaf])
                self.fix(self.labels(leaf), OUTPUT)

    def _mark_partial(self, call: Call, known: Sequence[Tensor]) -> None:
        """Units of a class of which the rest is not on the tensor are told apart from the rest."""
        for tensor in known:
            if tensor in self._labels:
                for factor in self._labels[tensor].factors:
                    self.relations.mark_partial(factor.ids, f"{call.name} acts on part of the units")

    def _interpret(self, call: Call, known: Sequence[Tensor]) -> None:
        self._fix_used(known)
        outputs = [leaf for leaf in tree_leaves(call.outputs) if isinstance(leaf, Tensor)]
        reached = [*outputs, *(other for tensor in call.written for other in self._labels.sharing(tensor))]
        self.flow.passes([tensor for tensor in known if tensor.numel() > 0], reached)
        if tells_values(call):
            self.branches = self._has_read = True
            self.flow.arrives(known)
        if not outputs and torch.Tag.data_dependent_output in call.func.tags:
            return
        self.relations.origin = self.origins.here(call.name)
        found = self._labels_made(call, known, outputs)
        for index, tensor in enumerate(outputs):
            labels = (found[index] if index < len(found) else None) or all_fixed(tensor)
            self._labels[tensor] = labels
            self._made_by[tensor] = self.relations.origin
            self.flow.meets(known, tensor, labels.has_units, self.relations.origin)

    def _labels_made(
        self, call: Call, known: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Sequence[Labels | None]:
        """Labels of what an operation returns."""
        if outputs and not call.written and all(output.numel() == 0 for output in outputs):
            self.flow.loses(known)
            if any(self.relations.is_partial(self.labels(tensor).units) for tensor in known):
                # Where there is nothing, nothing of some experts among others has been seen to meet.
                return [Labels(tuple(output.shape)) for output in outputs]
        try:
            if any(tensor.is_nested for tensor in (*call.tensors, *outputs)):
                raise NotUnderstoodError("it acts on a nested tensor")
            rule = find_rule(call.func)
            if rule is None:
                raise NotUnderstoodError("there is no rule for it")
            if call.func.overloadpacket.__name__ in _COMPOSING and self.flow.is_constant(call.tensors):
                raise NotUnderstoodError("where one constant ends and the next begins may have been read")
            result = rule(self, call)
            if rule.__module__ not in _MOVING or call.written:
                self._mark_partial(call, known)
            self._labels.check_written(call, result)
            found = labels_of_outputs(result, outputs)
        except NotUnderstoodError as error:
            for tensor in known:
                self.fix(self.labels(tensor), f"{call.name}: {error}")
            self._labels.freeze_written(call)
            return []
        for tensor, labels in zip(outputs, found, strict=True):
            if labels is None and tensor.numel():
                # What a rule says nothing of depends on the operands all the same.
                factors = tuple(factor for operand in known for factor in self.labels(operand).factors)
                reason = f"{call.name}: there is no rule for all it returns"
                self.fix_when_used(tensor, Labels((), factors), reason)
        return found
