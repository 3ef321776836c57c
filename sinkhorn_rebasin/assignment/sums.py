"""Column sums of long matrices whose rounding does not add up."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["weighted_column_sums"]

BLOCK = 16
"""Rows that are added up one after the other; the sums of blocks are added pairwise."""

SHORT = 2 * BLOCK
"""Rows up to which one product is exact enough."""

FEW = 2**15
"""Elements up to which the calls of a product by blocks cost more than its memory saves."""

LONG = 256
"""Rows from which a call for each matrix of a batch costs less than a copy of the batch."""


def weighted_column_sums(weights: Tensor, matrix: Tensor) -> Tensor:
    """Sum columns with weights and little rounding.

    Returns wᵀA of each matrix of a batch. The rounding does not grow with the number of rows.

    One product adds the rows up one by one. Columns of equal entries then round alike at every row: their sum is off
    by up to n/4 units in the last place.

    Args:
        weights: w, shape (B, n).
        matrix: A, shape (B, n, m).

    Example:
        >>> matrix = torch.eye(1000).softmax(-1).unsqueeze(0)
        >>> exact = matrix.double().sum(-2)
        >>> bool((weighted_column_sums(torch.ones(1, 1000), matrix) - exact).abs().max() < 1e-6)
        True
    """
    batch, rows, columns = matrix.shape
    if rows <= SHORT:
        return _product(weights, matrix)
    whole = rows - rows % BLOCK
    # Blocks of rows are a batch of their own, without a copy, where nothing is left over.
    apart = batch > 1 and whole < rows
    if matrix.numel() <= FEW or (apart and rows < LONG):
        return (weights.unsqueeze(-1) * matrix).sum(-2)
    if apart:
        pairs = zip(weights.split(1), matrix.split(1), strict=True)
        return torch.cat([weighted_column_sums(*pair) for pair in pairs])
    blocks = matrix[:, :whole].reshape(-1, BLOCK, columns)
    sums = _product(weights[:, :whole].reshape(-1, BLOCK), blocks).view(batch, -1, columns).sum(-2)
    return sums if whole == rows else sums + _product(weights[:, whole:], matrix[:, whole:])


def _product(weights: Tensor, matrix: Tensor) -> Tensor:
    return torch.bmm(weights.unsqueeze(-2), matrix).squeeze(-2)
