"""Know where constants come from, and label their positions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.networks.shared_memory import storage_key
from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels, fixed_labels
from sinkhorn_rebasin.symmetry.labels.numbering import factorize, row_hashes

# Constants larger than this are not searched for equal slices; all their positions count as different.
LARGEST_COMPARED_CONSTANT = 1 << 20


class Constants:
    """Remember tensors whose origin is known.

    Known are the network's tensors, tensors of before the run, and results of seen operations on constants.
    """

    def __init__(self) -> None:
        self._made: TensorTable[bool] = TensorTable()
        # Storages are kept, so that nothing made later can lie at their place.
        self._own: dict[int, Any] = {}
        self._foreign: dict[int, Any] = {}

    def add_own(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors of the network itself."""
        self._own |= _storages(tensors)

    def add_foreign(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors of before the run that others hold."""
        self._foreign |= _storages(tensors)

    def add_made(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors that operations made of constants or numbers."""
        for tensor in tensors:
            self._made[tensor] = True

    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor's origin is known."""
        return tensor in self._made or self.is_own(tensor) or self.is_foreign(tensor)

    def is_own(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies in the network's memory."""
        return storage_key(tensor) in self._own

    def is_foreign(self, tensor: Tensor) -> bool:
        """Tell whether a tensor's memory is foreign."""
        return storage_key(tensor) in self._foreign

    def made_beside(self, tensor: Tensor) -> list[Tensor]:
        """List constants of the run in a tensor's memory."""
        key = storage_key(tensor)
        if key in self._own or key in self._foreign:
            return []
        return [made for made in list(self._made) if storage_key(made) == key]

    def shares_memory(self, tensor: Tensor) -> bool:
        """Tell whether a tensor views a made constant."""
        key = storage_key(tensor)
        return any(storage_key(made) == key for made in list(self._made))


def _storages(tensors: Iterable[Tensor]) -> dict[int, Any]:
    """Map storage keys to storages, which keeps each alive."""
    with torch._C.DisableTorchFunction():
        return {
            storage_key(tensor): tensor.untyped_storage() if tensor.layout == torch.strided else tensor
            for tensor in tensors
        }


def constant_labels(tensor: Tensor) -> Labels:
    """Label a constant: equal slices share a fixed value.

    >>> constant_labels(torch.tensor([4.0, 4.0, 9.0])).factors[0].ids.tolist()
    [-1, -1, -2]
    """
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
        factors.append(Factor((axis,), -1 - factorize(row_hashes(rows))))
    return Labels(tuple(tensor.shape), tuple(factors))


def _comparable(tensor: Tensor) -> bool:
    """Tell whether a tensor's values can be compared."""
    return tensor.layout == torch.strided and not tensor.is_quantized
