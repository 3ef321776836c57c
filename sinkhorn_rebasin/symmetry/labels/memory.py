"""Label tensors whose memory operations write to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.networks.shared_memory import element_offsets, storage_key
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.symmetry.labels.constants import LARGEST_COMPARED_CONSTANT, Constants, constant_labels
from sinkhorn_rebasin.symmetry.labels.labels import Labels, all_fixed, fixed_labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result
from sinkhorn_rebasin.symmetry.labels.overwriting import overwritten
from sinkhorn_rebasin.symmetry.labels.relations import Relations


class LabelledMemory:
    """Keep labels by tensor, right after writes in place.

    Note:
        Functionalization removes writes of the network's code. Writes inside kernels remain.
    """

    def __init__(self, relations: Relations) -> None:
        self._relations = relations
        self._labels: TensorTable[Labels] = TensorTable()
        self._outdated: TensorTable[list[tuple[Labels, str]]] = TensorTable()
        self._overwritten: dict[int, torch.UntypedStorage] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor in self._labels

    def __getitem__(self, tensor: Tensor) -> Labels:
        return self._labels[tensor]

    def __setitem__(self, tensor: Tensor, labels: Labels) -> None:
        self._labels[tensor] = labels
        if tensor.is_nested and is_traceable_wrapper_subclass(tensor):
            # Its values and offsets are tensors of their own, which operations are given as well.
            for name in tensor.__tensor_flatten__()[0]:
                inner: Tensor = getattr(tensor, name)
                self._labels[inner] = all_fixed(inner)

    def is_overwritten(self, tensor: Tensor) -> bool:
        """Tell whether an unknown write reached a tensor's memory."""
        return bool(self._overwritten) and storage_key(tensor) in self._overwritten

    def lost(self, tensor: Tensor) -> Labels | None:
        """Return fixed labels where labels are outdated."""
        if self.is_overwritten(tensor):
            return fixed_labels(tensor.shape)
        if not self._outdated:
            return None
        for outdated, operation in self._outdated.get(tensor, ()):
            self._relations.fix(outdated.units, f"{operation} writes in place through another view")
        return fixed_labels(tensor.shape) if tensor in self._outdated else None

    def twin(self, tensor: Tensor) -> Tensor | None:
        """Find a labelled tensor that is the same view."""
        key = storage_key(tensor)
        for other in list(self._labels):
            if storage_key(other) == key and _is_same_view(tensor, other):
                return other
        return None

    def sharing(self, tensor: Tensor) -> list[Tensor]:
        """List labelled tensors in a tensor's memory, itself included."""
        key = storage_key(tensor)
        return [other for other in list(self._labels) if storage_key(other) == key]

    def fix_sharing(self, tensor: Tensor, reason: str) -> bool:
        """Fix the units in a tensor's memory.

        False when no view has labels.
        """
        sharing = self.sharing(tensor)
        for other in sharing:
            self._relations.fix(self._labels[other].units, reason)
        return bool(sharing)

    def take_in(self, call: Call, constants: Constants, is_known: Callable[[Tensor], bool]) -> None:
        """Label constants before a write makes them variable."""
        if not any(is_known(tensor) for tensor in call.tensors):
            return
        for tensor in call.written:
            if not is_known(tensor):
                for made in constants.made_beside(tensor):
                    self._labels[made] = constant_labels(made)

    def check_written(self, call: Call, result: Result) -> None:
        """Update the views that a write in place changed.

        Raises:
            NotUnderstoodError: when the written tensor has no labels.
        """
        for tensor in call.written:
            labels = self._labels.get(tensor)
            known = labels is not None and not self.is_overwritten(tensor)
            if not known or tensor is not call.outputs or not isinstance(result, Labels):
                raise NotUnderstoodError("it writes in place to memory made inside the network")
            key = storage_key(tensor)
            if labels.same_as(result):
                continue
            for other in list(self._labels):
                if other is tensor or storage_key(other) != key or not _overlap(tensor, other):
                    continue
                seen = overwritten(self._relations, other, self._labels[other], tensor, result)
                if seen is not None and other not in self._outdated:
                    self._labels[other] = seen
                else:
                    before = (self._labels[other], call.name)
                    self._outdated.setdefault(other, [before]).append((result, call.name))

    def freeze_written(self, call: Call) -> None:
        """Freeze memory that a call wrote to unseen."""
        for tensor in call.written:
            self.fix_sharing(tensor, f"{call.name} writes in place")
            self._overwritten[storage_key(tensor)] = tensor.untyped_storage()


def _is_same_view(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors are one view of memory."""
    if first.layout != torch.strided or second.layout != torch.strided or first.dtype != second.dtype:
        return False
    return (first.shape, first.stride(), first.storage_offset()) == (
        second.shape,
        second.stride(),
        second.storage_offset(),
    )


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Tell whether two views may share an element."""
    if max(first.numel(), second.numel()) > LARGEST_COMPARED_CONSTANT:
        return True
    return len(np.intersect1d(element_offsets(first), element_offsets(second))) > 0
