"""Run a network once and label every tensor it computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from sinkhorn_rebasin.symmetry.batched import BatchedParameters, Layouts
from sinkhorn_rebasin.symmetry.dispatch import LightDispatchMode
from sinkhorn_rebasin.symmetry.join import joined, unpinned
from sinkhorn_rebasin.symmetry.labels import Factor, Labels, fixed_labels
from sinkhorn_rebasin.symmetry.numbering import numbered, row_hashes
from sinkhorn_rebasin.symmetry.origin import Origins
from sinkhorn_rebasin.symmetry.overwriting import overwritten
from sinkhorn_rebasin.symmetry.relations import Relations
from sinkhorn_rebasin.symmetry.rules import find_rule, movement, shuffling, strided, windows
from sinkhorn_rebasin.symmetry.rules.registry import Call, NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.rules.strided import element_offsets

# Constants larger than this are not searched for equal slices; all their positions count as different.
LARGEST_COMPARED_CONSTANT = 1 << 20
_MOVING = tuple(module.__name__ for module in (movement, shuffling, strided, windows))


class Tape(LightDispatchMode):
    """Interprets each ATen operation, as it is dispatched, on the labels of its tensors.

    ``parameters`` maps tensor names to the tensors whose axes may be permuted. Tensors that come neither from
    them nor from the inputs are constants, random ones too unless ``noise_is_symmetric`` is set: then all places
    of a random tensor are alike.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor], layouts: Layouts | None = None
    ) -> None:
        super().__init__()
        self.relations = Relations()
        self._layouts = layouts or {}
        self.batched = BatchedParameters(self._layouts)
        self.parameter_labels: dict[str, Labels] = {}
        self.noise_is_symmetric = False
        self.origins = Origins()
        self._made_by = WeakTensorKeyDictionary()
        self._names = WeakTensorKeyDictionary()
        self._labels = WeakTensorKeyDictionary()
        self._outdated = WeakTensorKeyDictionary()
        self._places = WeakTensorKeyDictionary()
        self._overwritten: dict[int, torch.UntypedStorage] = {}
        for name, tensor in parameters.items():
            self._names[tensor] = self._names.get(tensor, name)
        self.branches = False
        self.wanders = False  # whether the last of the ways that were followed still had something to say
        self.missed: list[str] = []  # parameters that no run of a network with branches used
        self.add_inputs(inputs)

    def add_inputs(self, inputs: Sequence[Tensor]) -> None:
        """Tensors of which every position is fixed."""
        for tensor in inputs:
            self._labels[tensor] = fixed_labels(tensor.shape)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        former = self._former(args[0]) if func is torch.ops.aten.as_strided_.default else None
        outputs = func(*args, **kwargs)
        if former is not None:
            func, args = torch.ops.aten.as_strided.default, (former, *args[1:])
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = [tensor for tensor in tensors if self.knows(tensor)]
        if known or (self.noise_is_symmetric and torch.Tag.nondeterministic_seeded in func.tags):
            self._interpret(Call.bind(func, args, kwargs, outputs), known)
        return outputs

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on parameters or inputs."""
        return tensor in self._labels or tensor in self._names or self._is_overwritten(tensor)

    def _former(self, tensor: Tensor) -> Tensor:
        """A view that keeps the strides a tensor has, for when they are changed in place."""
        former = tensor.detach()
        if self.knows(tensor):
            self._labels[former] = self.labels(tensor)
        return former

    def name_of(self, tensor: Tensor) -> str | None:
        """Name of a parameter, None for any other tensor."""
        return self._names.get(tensor)

    def labels(self, tensor: Tensor) -> Labels:
        """Labels of a parameter, an intermediate tensor or a constant."""
        if self._is_overwritten(tensor):
            return fixed_labels(tensor.shape)
        for outdated, operation in self._outdated.get(tensor, ()):
            self.fix(outdated, f"{operation} writes in place through another view")
        if tensor in self._outdated:
            return fixed_labels(tensor.shape)
        if tensor in self._labels:
            return unpinned(self.relations, self._labels[tensor])
        name = self.name_of(tensor)
        if name is None:
            return constant_labels(tensor)
        axes = [(axis,) for axis, length in enumerate(tensor.shape) if length > 1]
        return self.lay_out(tensor, tuple(tensor.shape), sorted(self._layouts.get(name, axes)))

    def lay_out(self, tensor: Tensor, view: tuple[int, ...], axes: Sequence[tuple[int, ...]]) -> Labels:
        """Give a parameter, seen for the first time, fresh units over these sets of axes of a view of it."""
        name = self._names[tensor]
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
        return tensor in self._names and tensor not in self._labels

    def uses(self, tensor: Tensor) -> bool:
        """Whether an operation has used a parameter; one without elements has nothing to use."""
        return tensor in self._labels or tensor.numel() == 0

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

    def fix_unread(self) -> None:
        """Parts of parameters that no operation read, as later rows of a table of positions, stay where they are.

        Other inputs may read them in an order of their own. Where units are positions along several axes, as those of
        one matrix for each expert, matrices that were read stay too: the others are read by what is on their units.
        """
        self.relations.origin = None
        factors = [factor for each in self.parameter_labels.values() for factor in each.factors]
        matrices = [factor.ids[factor.ids >= 0] for factor in factors if len(factor.axes) > 1]
        if matrices:
            reason = "no input tried read some of its matrices"
            self.relations.fix_partly_untouched(np.concatenate(matrices), reason)
        units = [factor.ids[factor.ids >= 0] for factor in factors]
        if units:
            reason = "nothing reads these positions for inputs of this shape"
            self.relations.fix_untouched(np.concatenate(units), reason)

    def note_read(self, tensor: Tensor) -> None:
        """Values of a tensor leave for Python: the network may branch on them, and do anything with their order."""
        if self.knows(tensor):
            self.branches = True
            self._fix_used([tensor])
            self.fix(self.labels(tensor), "its values are read as a list or an array")

    def fix_outputs(self, outputs: Any) -> None:
        """The network's outputs are read position by position."""
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor) and self.knows(leaf):
                self.relations.origin = self._made_by.get(leaf)
                self._fix_used([leaf])
                self.fix(self.labels(leaf), "output of the network")

    def _is_overwritten(self, tensor: Tensor) -> bool:
        return bool(self._overwritten) and _storage_key(tensor) in self._overwritten

    def _check_written(self, call: Call, result: Result) -> None:
        """A write in place is understood where the tensor is known; other views of what changed are outdated.

        Functionalisation takes away the writes of the network's own code; what is left is inside kernels.
        """
        for tensor in call.written:
            labels = self._labels.get(tensor)
            if labels is None or tensor is not call.outputs or not isinstance(result, Labels):
                raise NotUnderstoodError("it writes in place to memory made inside the network")
            key = _storage_key(tensor)
            if labels.same_as(result):
                continue
            for other in list(self._labels):
                if other is tensor or _storage_key(other) != key or not _overlap(tensor, other):
                    continue
                seen = overwritten(self.relations, other, self._labels[other], tensor, result)
                if seen is not None and other not in self._outdated:
                    self._labels[other] = seen
                else:
                    before = (self._labels[other], call.name)
                    self._outdated.setdefault(other, [before]).append((result, call.name))

    def _freeze_written(self, call: Call) -> None:
        """Memory that functionalisation left to be written in place: whatever lies in it stays fixed from here."""
        for tensor in call.written:
            key = _storage_key(tensor)
            for other in list(self._labels.keys()):
                if _storage_key(other) == key:
                    self.fix(self._labels[other], f"{call.name} writes in place")
            self._overwritten[key] = tensor.untyped_storage()

    def _mark_partial(self, call: Call, known: Sequence[Tensor]) -> None:
        """Units of a class of which the rest is not on the tensor are told apart from the rest."""
        for tensor in known:
            if tensor in self._labels:
                for factor in self._labels[tensor].factors:
                    self.relations.mark_partial(factor.ids, f"{call.name} acts on part of the units")

    def _interpret(self, call: Call, known: Sequence[Tensor]) -> None:
        self._fix_used(known)
        outputs = [leaf for leaf in tree_leaves(call.outputs) if isinstance(leaf, Tensor)]
        if _tells_values(call):
            self.branches = True
        if not outputs and torch.Tag.data_dependent_output in call.func.tags:
            return
        self.relations.origin = self.origins.here(call.name)
        try:
            rule = find_rule(call.func)
            if rule is None:
                raise NotUnderstoodError("there is no rule for it")
            if rule.__module__ not in _MOVING or call.written:
                self._mark_partial(call, known)
            result = rule(self, call)
            self._check_written(call, result)
        except NotUnderstoodError as error:
            for tensor in known:
                self.fix(self.labels(tensor), f"{call.name}: {error}")
            self._freeze_written(call)
            result = None
        found: Sequence[Labels | None] = [result] if isinstance(result, Labels) else (result or [])
        for index, tensor in enumerate(outputs):
            labels = found[index] if index < len(found) else None
            self._labels[tensor] = labels if labels is not None else fixed_labels(tensor.shape)
            self._made_by[tensor] = self.relations.origin


def _tells_values(call: Call) -> bool:
    """Whether Python sees values of tensors in what comes out: a number, or a shape that depends on them."""
    if torch.Tag.data_dependent_output in call.func.tags:
        return True
    if torch.Tag.dynamic_output_shape not in call.func.tags:
        return False
    if call.func is not torch.ops.aten.index.Tensor:
        return True
    masks = (torch.bool, torch.uint8)
    return any(isinstance(leaf, Tensor) and leaf.dtype in masks for leaf in tree_leaves(call["indices"]))


def _storage_key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Whether two views of one memory share an element; large ones are taken to."""
    if max(first.numel(), second.numel()) > LARGEST_COMPARED_CONSTANT:
        return True
    return len(np.intersect1d(element_offsets(first), element_offsets(second))) > 0


def constant_labels(tensor: Tensor) -> Labels:
    """Labels of a constant: positions along an axis with equal slices are interchangeable."""
    if tensor.dim() == 0 or tensor.numel() == 0:
        return Labels(tuple(tensor.shape))
    if tensor.numel() > LARGEST_COMPARED_CONSTANT or not _comparable(tensor):
        return fixed_labels(tensor.shape)
    values = torch.view_as_real(tensor.detach()).cpu() if tensor.is_complex() else tensor.detach().cpu()
    array = (values.double() + 0.0).numpy().view(np.int64) if values.is_floating_point() else values.numpy()
    factors = []
    for axis in range(tensor.dim()):
        rows = np.ascontiguousarray(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1)
        if bool((rows == rows[:1]).all()):
            continue
        factors.append(Factor((axis,), -1 - numbered(row_hashes(rows))))
    return Labels(tuple(tensor.shape), tuple(factors))


def _comparable(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized
