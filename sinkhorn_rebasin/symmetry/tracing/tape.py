"""Run a network once and label every tensor it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.dispatched_call import Call, tells_values, writes
from sinkhorn_rebasin.networks.reachable import reachable_tensors
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.networks.undisturbed import computed
from sinkhorn_rebasin.networks.value_reads import FROM_PYTHON
from sinkhorn_rebasin.permutations.views.coverage import OUTPUT
from sinkhorn_rebasin.symmetry.labels.experts import Layouts
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels, all_fixed, fixed_labels
from sinkhorn_rebasin.symmetry.labels.origin import Origin
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError
from sinkhorn_rebasin.symmetry.labels.parameter_flow import ParameterFlow, WatchedTensors
from sinkhorn_rebasin.symmetry.rules import find_rule
from sinkhorn_rebasin.symmetry.rules.registry import labels_of_outputs
from sinkhorn_rebasin.symmetry.tracing.call_sites import CallSites
from sinkhorn_rebasin.symmetry.tracing.projections import Projections

# What puts a constant of several values together, of which each may be one value everywhere.
_COMPOSING = {"cat", "constant_pad_nd", "select_scatter", "slice_scatter", "stack"}


class Tape(DispatchMode):
    """Interpret each dispatched operation on labels.

    What the operations do to labels is in :class:`Labelling`; the tape sees the run, looks after writes in place and
    notes what Python had a say in.
    """

    def __init__(self, parameters: Mapping[str, Tensor], layouts: Layouts | None = None) -> None:
        super().__init__()
        self.labelling = Labelling(parameters, layouts)
        self.flow = ParameterFlow(parameters)
        self.integers = WatchedTensors()
        self.call_sites = CallSites()
        self.attention = Projections(parameters)
        self._made_by: TensorTable[Origin] = TensorTable()
        self.branches = False  # whether a run has read a value, so that others may go another way
        self._has_read = False  # whether this run has: what Python makes from now on may depend on it
        self.literals = False  # whether Python made tensors of several numbers of its own
        self.unseen: Origin | None = None  # the first operation that met what was computed out of sight
        self.more_branches_than_followed = False  # whether the last one still told something
        self.branches_followed = 1  # how many ways through the network were followed
        self.trained = False  # whether a run in training mode was among them
        self.never_used: list[str] = []  # parameters that no run of a network with branches used

    def begin(self, model: nn.Module, inputs: Sequence[Tensor], integers: Mapping[str, Tensor]) -> None:
        """Begin a run: fix all inputs, and watch integers."""
        self.call_sites.follow(model)
        self.labelling.constants.add_own(reachable_tensors(model))
        self._has_read = False
        self.flow.enters(inputs)
        self.integers.watch(integers)
        for tensor in inputs:
            self.labelling[tensor] = all_fixed(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        labelling = self.labelling
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            former = labelling.former_view(args[0]) if func is torch.ops.aten.as_strided.default else None
            if writes(func):
                labelling.memory.take_in(
                    Call.bind(func, args, kwargs, None), labelling.constants, labelling.knows
                )
        outputs = computed(func, args, kwargs)
        with torch._C.DisableTorchFunction():
            if former is not None:
                func, args = torch.ops.aten.as_strided.default, (former, *args[1:])
            self._see(func, args, kwargs, outputs)
        return outputs

    def _see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        """Interpret an operation, or note constants it made."""
        labelling = self.labelling
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self._find_origin(tensor, func)
        self.integers.note(func, tensors, outputs)
        made = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        self.attention.note(func.overloadpacket.__name__, tensors, made)
        known = [tensor for tensor in tensors if labelling.knows(tensor)]
        if (
            known
            or self._has_read
            or (labelling.noise_is_symmetric and torch.Tag.nondeterministic_seeded in func.tags)
        ):
            self._interpret(Call.bind(func, args, kwargs, outputs), known)
        else:
            labelling.constants.add_made(made)

    def _find_origin(self, tensor: Tensor, func: Any) -> None:  # func: the operation it is given to, if any
        """Tell constants from tensors computed out of sight."""
        labelling = self.labelling
        if labelling.knows(tensor) or labelling.constants.holds(tensor):
            if self._has_read and labelling.constants.is_foreign(tensor) and not labelling.knows(tensor):
                labelling[tensor] = fixed_labels(tensor.shape)
            return
        twin = labelling.memory.twin(tensor)
        if twin is not None:
            labelling[tensor] = labelling.memory[twin]
        elif labelling.memory.fix_sharing(tensor, "its memory is read in another way"):
            labelling[tensor] = fixed_labels(tensor.shape)
        elif func in FROM_PYTHON or labelling.constants.shares_memory(tensor):
            self.literals |= tensor.numel() > 1
            if self._has_read:
                # Numbers that Python hands back may have been chosen by the values it has read.
                labelling[tensor] = fixed_labels(tensor.shape)
            else:
                labelling.constants.add_made([tensor])
        else:
            self.unseen = self.unseen or self.call_sites.here(str(func.overloadpacket) if func else "")
            labelling[tensor] = fixed_labels(tensor.shape)

    @property
    def wants_proof(self) -> bool:
        """Tell whether Python may have influenced the computation."""
        return self.branches or self.literals or self.unseen is not None

    def uses(self, tensor: Tensor) -> bool:
        """Tell whether something came of a parameter."""
        return self.labelling.meets(tensor) and not self.flow.is_idle(tensor)

    def note_read(self, tensor: Tensor) -> None:
        """Fix what Python reads as values."""
        self._find_origin(tensor, None)
        self.integers.note_values([tensor])
        if self.labelling.knows(tensor):
            self.branches = self._has_read = True
            self.flow.arrives([tensor])
            self.labelling.fix_used([tensor])
            self.labelling.fix(self.labelling.labels(tensor), "its values are read as a list or an array")

    def note_made(self, tensor: Tensor) -> None:
        """Fix a tensor that Python made of values read."""
        self.labelling[tensor] = all_fixed(tensor)

    def fix_outputs(self, outputs: Any) -> None:
        """Fix every position of the network's outputs."""
        labelling = self.labelling
        leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        self.flow.arrives(leaves)
        for leaf in leaves:
            self._find_origin(leaf, None)
            if labelling.knows(leaf):
                labelling.relations.origin = self._made_by.get(leaf)
                labelling.fix_used([leaf])
                labelling.fix(labelling.labels(leaf), OUTPUT)

    def _interpret(self, call: Call, known: Sequence[Tensor]) -> None:
        """Label the outputs of an operation."""
        labelling = self.labelling
        labelling.fix_used(known)
        outputs = [leaf for leaf in tree_leaves(call.outputs) if isinstance(leaf, Tensor)]
        reached = [
            *outputs,
            *(other for tensor in call.written for other in labelling.memory.sharing(tensor)),
        ]
        self.flow.passes([tensor for tensor in known if tensor.numel() > 0], reached)
        if tells_values(call):
            self.branches = self._has_read = True
            self.flow.arrives(known)
        if not outputs and torch.Tag.data_dependent_output in call.func.tags:
            return
        labelling.relations.origin = self.call_sites.here(call.name)
        made = self._labels_made(call, known, outputs)
        for index, tensor in enumerate(outputs):
            labels = (made[index] if index < len(made) else None) or all_fixed(tensor)
            labelling[tensor] = labels
            self._made_by[tensor] = labelling.relations.origin
            self.flow.meets(known, tensor, labels.has_units, labelling.relations.origin)

    def _labels_made(
        self, call: Call, known: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Sequence[Labels | None]:
        """Apply a rule, or freeze the operands."""
        labelling = self.labelling
        if outputs and not call.written and all(output.numel() == 0 for output in outputs):
            self.flow.loses(known)
            if any(labelling.relations.is_partial(labelling.labels(tensor).units) for tensor in known):
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
            result = rule.function(labelling, call)
            if not rule.moves or call.written:
                labelling.mark_partial(call, known)
            labelling.memory.check_written(call, result)
            made = labels_of_outputs(result, outputs)
        except NotUnderstoodError as error:
            for tensor in known:
                labelling.fix(labelling.labels(tensor), f"{call.name}: {error}")
            labelling.memory.freeze_written(call)
            return []
        for tensor, labels in zip(outputs, made, strict=True):
            if labels is None and tensor.numel():
                # What a rule says nothing of depends on the operands all the same.
                factors = tuple(factor for operand in known for factor in labelling.labels(operand).factors)
                reason = f"{call.name}: there is no rule for all it returns"
                labelling.fix_when_used(tensor, Labels((), factors), reason)
        return made
