"""Small parts of held-out batches, whose losses tell how sure a mean loss is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

PARTS = 100
"""So many are enough: more would hardly change a standard error."""
SAME = 1e-2
"""Means over parts and over batches differ by less than this part, in half precision too."""


@dataclass(frozen=True)
class Parts:
    """Hold parts of batches.

    Attributes:
        batches: the parts, each a batch itself.
        shares: (parts,), how much of its batch each is.
    """

    batches: list[Any]
    shares: Tensor


def parts_of(batches: Sequence[Any], most: int = PARTS) -> Parts:
    """Part batches into single samples, or into about so many parts.

    Batches that are not made of tensors alone, one row a sample, stay whole.

    Args:
        batches: in memory.
        most: parts, where there are not more batches.

    >>> parts = parts_of([(torch.ones(3, 2), torch.ones(3)), ("text", torch.ones(2))], most=2)
    >>> [len(labels) for _, labels in parts.batches], parts.shares.tolist()
    ([2, 1, 2], [0.6666666666666666, 0.3333333333333333, 1.0])
    """
    lengths = [rows_in(batch) for batch in batches]
    size = max(1, math.ceil(sum(length or 1 for length in lengths) / most))
    parts: list[Any] = []
    shares: list[float] = []
    for batch, length in zip(batches, lengths, strict=True):
        if length is None:
            parts, shares = [*parts, batch], [*shares, 1.0]
            continue
        for first in range(0, length, size):
            rows = slice(first, first + size)
            parts.append(cut(batch, rows))
            shares.append(len(range(length)[rows]) / length)
    return Parts(parts, torch.tensor(shares, dtype=torch.float64))


def parts_for(batches: Sequence[Any], mean: Callable[[Parts], float]) -> Parts:
    """Part batches, unless that changes a mean loss.

    A loss that is no mean over samples, such as one that contrasts them, is left its batches.

    Args:
        batches: in memory.
        mean: the loss, of one and the same network.

    >>> parts_for([torch.ones(4)], lambda parts: sum(float(each.mean()) for each in parts.batches)).batches
    [tensor([1., 1., 1., 1.])]
    """
    parts, batched = parts_of(batches), whole(batches)
    try:
        found, expected = mean(parts), mean(batched)
    except (ValueError, RuntimeError):  # what is said of parts that a network or a criterion is not made for
        return batched
    return parts if math.isclose(found, expected, rel_tol=SAME, abs_tol=SAME) else batched


def whole(batches: Sequence[Any]) -> Parts:
    """Return batches as parts.

    >>> whole([1, 2]).shares.tolist()
    [1.0, 1.0]
    """
    return Parts(list(batches), torch.ones(len(batches), dtype=torch.float64))


def rows_in(batch: Any) -> int | None:
    """Count the rows that all tensors of a batch have in common.

    None where they have none, or where it holds something else too.

    >>> rows_in((torch.ones(3, 2), torch.ones(3))), rows_in(("text", torch.ones(2)))
    (3, None)
    """
    leaves = [leaf for leaf in tree_leaves(batch) if leaf is not None]
    if not leaves or not all(isinstance(leaf, Tensor) and _hasrows_in(leaf) for leaf in leaves):
        return None
    lengths = {len(leaf) for leaf in leaves}
    return lengths.pop() if len(lengths) == 1 else None


def _hasrows_in(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested and tensor.ndim > 0


def cut(batch: Any, rows: slice | Tensor) -> Any:
    """Return some rows of every tensor of a batch.

    >>> cut((torch.arange(3), None), torch.tensor([2, 0]))
    (tensor([2, 0]), None)
    """
    return tree_map(lambda leaf: leaf if leaf is None else leaf[rows], batch)
