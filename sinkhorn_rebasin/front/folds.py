"""Folds of few samples: each is kept out of one fit, so that every sample decides and every sample trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.front.data import (
    AlignmentData,
    Fold,
    can_be_parted,
    check_readable,
    first_batches,
    loader_of,
    shuffled,
)
from sinkhorn_rebasin.front.parts import cut, rows_in

FEW = 100
"""Of fewer samples a part large enough to decide is missed where it does not train."""
FEWEST_OF_A_FOLD = 2


def data_in_folds(
    train: Any, count: int, samples: int, seed: int, batch: BatchAdapter | None
) -> AlignmentData | None:
    """Part fewer than 100 samples into folds.

    Returns None where there are more, fewer than two a fold, or where they cannot be parted: samples of a DataLoader
    are drawn from its dataset, and those of a list are the rows of its batches, which have to be made of tensors.

    Args:
        train: a DataLoader, or a list of batches.
        count: of folds.
        samples: of each part, at most so many are kept in memory.
        seed: of what lies in which fold.
        batch: a function from a batch to (inputs, labels).

    >>> data = data_in_folds([torch.arange(12.0)], 3, 100, 0, None)
    >>> [len(fold.validation[0]) for fold in data.folds], data.kept_out
    ([4, 4, 4], 'each of 3 folds of 12 training samples')
    """
    check_readable("train", train)
    total = _few(train)
    if count < 2 or total is None or total < FEWEST_OF_A_FOLD * count:
        return None
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    folds = []
    for number in range(count):
        kept_out = order[number::count]
        rest = torch.cat([order[other::count] for other in range(count) if other != number])
        parts = (_part(train, rest, seed), _part(train, kept_out.sort().values, seed, held_out=True))
        training, validation = (first_batches(part, samples, batch) for part in parts)
        folds.append(Fold(shuffled(parts[0], seed), training, validation, len(kept_out)))
    told = f"each of {count} folds of {total} training samples"
    return AlignmentData(shuffled(train, seed), first_batches(train, samples, batch), told, tuple(folds))


def _few(train: Any) -> int | None:
    """Count samples that are few; None where they are not, or cannot be parted."""
    if isinstance(train, DataLoader):
        if not can_be_parted(train):
            return None
        total = len(train.dataset)  # type: ignore[arg-type]
        return total if total < FEW else None
    if not isinstance(train, Sequence) or len(train) >= FEW:
        return None
    lengths = [rows_in(found) for found in train]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) and sum(known) < FEW else None


def _part(train: Any, numbers: torch.Tensor, seed: int, held_out: bool = False) -> Any:
    """Return the samples of some numbers, in batches like those they come from."""
    if isinstance(train, DataLoader):
        return loader_of(train, numbers.tolist(), seed, held_out=held_out)
    parts, first = [], 0
    for found in train:
        length = rows_in(found) or 0
        rows = numbers[(numbers >= first) & (numbers < first + length)] - first
        if len(rows):
            parts.append(cut(found, rows.sort().values))
        first += length
    return parts
