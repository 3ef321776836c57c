"""Steps for losses that need no data."""

from __future__ import annotations

from torch.utils.data import DataLoader


def data_free_steps(steps: int) -> DataLoader[int]:
    """Make a dataloader for data-free losses.

    It has so many steps an epoch. Its batches are only numbers.

    >>> len(data_free_steps(3)), list(data_free_steps(3))
    (3, [0, 1, 2])
    """
    return DataLoader(range(steps), batch_size=None)  # type: ignore[arg-type]
