"""Mean and variance of each unit's values, gathered batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Gather count, mean and squared deviations of units.

    They are those of the values that one layer's units took.

    Shapes:
        ``mean``, ``squares`` and ``deviation()`` are (units,), float64; before the first batch they are a
        single zero.

    Example:
        >>> moments = Moments()
        >>> for batch in (torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 5.0]])):
        ...     moments.update(batch, axis=-1)
        >>> moments.mean.tolist(), moments.deviation().tolist(), moments.count
        ([2.0, 5.0], [1.0, 0.0], 2)
    """

    def __init__(self) -> None:
        self.calls = 0
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def update(self, values: Tensor, axis: int) -> None:
        """Take in more values.

        The units lie along ``axis``. Each other position is one value of a unit.
        """
        values = values.detach()
        over = [number for number in range(values.ndim) if number != axis % values.ndim]
        count = values.numel() // values.shape[axis]
        if not count:
            return
        # At the width of the network where that is enough to add up: float64 is slow on accelerators.
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        variance, mean = torch.var_mean(values, over, correction=0) if over else (values * 0, values)
        self.calls += 1
        self._merge(count, mean.double(), variance.double() * count)

    def merge(self, other: Moments) -> None:
        """Take in what another has gathered.

        >>> parts = [Moments(), Moments()]
        >>> for part, value in zip(parts, (1.0, 3.0)):
        ...     part.update(torch.tensor([[value]]), axis=-1)
        >>> parts[0].merge(parts[1])
        >>> parts[0].mean.item(), parts[0].count
        (2.0, 2)
        """
        if other.count:
            self.calls += other.calls
            self._merge(other.count, other.mean, other.squares)

    def deviation(self) -> Tensor:
        """Return the values' standard deviation.

        The sum is divided by the number of all values.
        """
        return (self.squares / self.count).sqrt()

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        # Pairwise update of Chan, Golub and LeVeque (1983): no cancellation however far the mean is from 0.
        shift, total = mean - self.mean, self.count + count
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total
