"""Budgets: how many samples a way may look at, and whether they have labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front import data

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
        example: what symmetries are found on; the first two inputs where None.
    """

    name: str
    inputs: Tensor
    labels: Tensor | None
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
