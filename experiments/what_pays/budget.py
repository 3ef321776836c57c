"""Budgets: how many samples a way may look at, and whether they have labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front import data
from sinkhorn_rebasin.front.folds import FEW

HELD_OUT, MOST_HELD_OUT = 0.2, 1000


@dataclass(frozen=True)
class Budget:
    """Say what a way may look at.

    Attributes:
        size: samples; 0 for no data, None for all that there are.
        labelled: whether they come with labels.

    >>> str(Budget(50)), str(Budget(None, labelled=True)), str(Budget(0))
    ('50 unlabelled', 'all labelled', 'no data')
    """

    size: int | None
    labelled: bool = False

    @property
    def named_size(self) -> str:
        """Return the size as it is asked for: a number, or all."""
        return "all" if self.size is None else str(self.size)

    def __str__(self) -> str:
        if self.size == 0:
            return "no data"
        return f"{self.named_size} {'labelled' if self.labelled else 'unlabelled'}"


@dataclass(frozen=True)
class Pool:
    """Hold all samples that a budget may be made of.

    Attributes:
        name: of the data.
        inputs: first those that no network has seen, in a drawn order, then the others.
        labels: one an input; None where there are none.
        kinds: numbers of what the inputs are samples of, such as molecules, none of which is both trained on and held
            out; None where each input is of its own.
        example: what symmetries are found on; the first two inputs where None.
    """

    name: str
    inputs: Tensor
    labels: Tensor | None
    kinds: Tensor | None = None
    example: Tensor | None = None


def samples_of(pool: Pool, budget: Budget) -> tuple[Tensor, Tensor | None]:
    """Return the inputs of a budget, and their labels where it has some.

    Raises:
        DataError: a budget that is larger than the data, or labels where there are none.

    >>> import torch
    >>> inputs, labels = samples_of(Pool("digits", torch.arange(5.0), torch.arange(5)), Budget(2, labelled=True))
    >>> inputs.tolist(), labels.tolist()
    ([0.0, 1.0], [0, 1])
    """
    available = len(pool.inputs)
    if budget.size is not None and budget.size > available:
        raise DataError(
            f"Expected a budget of at most {available} samples, which is all of {pool.name}, but got {budget.size}: "
            f"ask for fewer, or for all."
        )
    if budget.labelled and pool.labels is None:
        raise DataError(
            f"Expected a budget without labels, as {pool.name} has none, but got {budget}: set labelled to false."
        )
    inputs = pool.inputs[: budget.size]
    labels = pool.labels[: budget.size] if budget.labelled and pool.labels is not None else None
    return inputs, labels


def held_out_of(size: int) -> int:
    """Return how many of a budget's samples decide: a fifth, or half of a small one, at most 1,000.

    Ten samples cannot tell a gain from chance.

    >>> held_out_of(50), held_out_of(200), held_out_of(60_000)
    (25, 40, 1000)
    """
    return min(MOST_HELD_OUT, data.held_out_of(size, HELD_OUT))


def held_out_first(pool: Pool, size: int) -> tuple[Tensor, int]:
    """Return the order of a budget's samples in which those that decide come first, and how many these are.

    They are the first that were drawn; of samples of some kinds all of the first kinds, which may be a few more. The
    last kind is left to train on.

    >>> pool = Pool("noise", torch.arange(10.0), None, torch.tensor([3, 1, 1, 3, 1, 1, 3, 1, 1, 1]))
    >>> order, count = held_out_first(pool, 10)
    >>> order.tolist(), count
    ([0, 3, 6, 1, 2, 4, 5, 7, 8, 9], 3)
    """
    count = held_out_of(size)
    if pool.kinds is None:
        return torch.arange(size), count
    kinds = pool.kinds[:size]
    held_out = torch.zeros(size, dtype=torch.bool)
    for kind in [*dict.fromkeys(kinds.tolist())][:-1]:
        if held_out.sum() >= count:
            break
        held_out |= kinds == kind
    return torch.cat([held_out.nonzero().flatten(), (~held_out).nonzero().flatten()]), int(held_out.sum())


def parts_of_kinds(kinds: Tensor, count: int, seed: int) -> list[Tensor]:
    """Part samples by kind, each kind in one part.

    Samples of one kind are alike, so that it is the number of kinds which says how much a part of them can tell.
    Returns the samples of each part, by number; nothing where there are fewer than two kinds a part, or not few.

    >>> kinds = torch.tensor([3, 1, 1, 3, 2, 0])
    >>> parts = parts_of_kinds(kinds, 2, seed=0)
    >>> [sorted(set(kinds[part].tolist())) for part in parts]
    [[0, 3], [1, 2]]
    """
    found = kinds.unique()
    if not 2 * count <= len(found) < FEW:
        return []
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return [torch.isin(kinds, found[order[number::count]]).nonzero().flatten() for number in range(count)]
