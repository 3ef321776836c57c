"""Label identity matrices, which equal permutations of rows and columns keep."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.networks.tensor_tables import TensorTable
from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.relations import Relations


class Identities:
    """Give rows and columns of identity matrices matched units."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations
        self._labels: TensorTable[Labels] = TensorTable()

    def labels(self, tensor: Tensor) -> Labels | None:
        """Label an identity matrix, alike at every call.

        None when the constant is no identity matrix.
        """
        if not is_like_an_identity(tensor):
            return None
        if tensor not in self._labels:
            rows, columns = (self._relations.new_units((tensor.shape[-1],)) for _ in range(2))
            self._relations.relate(rows, columns)
            axes = tensor.dim() - 2, tensor.dim() - 1
            factors = Factor(axes[:1], rows), Factor(axes[1:], columns)
            self._labels[tensor] = Labels(tuple(tensor.shape), factors)
        labels: Labels = self._labels[tensor]
        return labels


def is_like_an_identity(tensor: Tensor) -> bool:
    """Tell whether a matrix is like an identity.

    >>> is_like_an_identity(2 * torch.eye(3) - 1)
    True
    >>> is_like_an_identity(torch.ones(3, 3)), is_like_an_identity(torch.eye(3).flip(0))
    (False, False)
    """
    if tensor.dim() < 2 or tensor.layout != torch.strided or tensor.is_quantized:
        return False
    length = tensor.shape[-1]
    if length < 2 or tensor.shape[-2] != length or tensor.numel() == 0:
        return False
    matrix = tensor.detach()[(0,) * (tensor.dim() - 2)]
    corner = matrix[:2, :2]
    if not bool(
        (corner[0, 0] == corner[1, 1]) & (corner[0, 1] == corner[1, 0]) & (corner[0, 0] != corner[0, 1])
    ):
        return False
    # A row ends one place before the next place on the diagonal.
    beside = matrix.flatten()[:-1].view(length - 1, length + 1)
    alike = (beside[:, 0] == matrix[0, 0]).all() & (beside[:, 1:] == matrix[0, 1]).all()
    alike &= (matrix[-1, -1] == matrix[0, 0]) & (tensor == matrix).all()
    return bool(alike)
