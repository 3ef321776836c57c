"""How much better one alignment is than another on held-out data, and whether so few data can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import t as students_t
from torch import Tensor

LEVEL = 0.05
"""Chance gives a gain that counts less often than this."""


@dataclass(frozen=True)
class PartLosses:
    """Hold the loss of one alignment on each part of the held-out data.

    Attributes:
        values: (parts,), mean over the samples of each.
        weights: (parts,), what each mean was taken over.
    """

    values: Tensor
    weights: Tensor

    @property
    def mean(self) -> float:
        """Return the mean over all samples.

        It is infinite where it is not finite.
        """
        shares = self.weights / self.weights.sum()
        mean = (self.values * shares).where(shares > 0, 0.0).sum().item()
        return mean if math.isfinite(mean) else math.inf


def together(parts: Sequence[PartLosses]) -> PartLosses:
    """Put losses on several data sets together.

    >>> import torch
    >>> together([PartLosses(torch.ones(1), torch.ones(1)), PartLosses(torch.zeros(1), torch.ones(1))]).mean
    0.5
    """
    return PartLosses(torch.cat([each.values for each in parts]), torch.cat([each.weights for each in parts]))


@dataclass(frozen=True)
class Gain:
    """Hold a mean gain and its standard error.

    Attributes:
        mean: by how much the loss is lower.
        error: of the mean; None with fewer than two parts.
        parts: of the data.

    >>> print(Gain(0.25, 0.125, 10))
    0.2500 ± 0.1250
    """

    mean: float
    error: float | None
    parts: int

    @property
    def shows(self) -> bool:
        """Tell whether it is larger than its standard error.

        That is enough between alignments none of which was fitted to these data. Without an error, or without any
        spread, every gain shows.

        >>> Gain(0.25, 0.125, 10).shows, Gain(0.25, 0.5, 10).shows, Gain(0.25, None, 1).shows
        (True, False, True)
        """
        return self.mean > (self.error or 0.0)

    @property
    def counts(self) -> bool:
        """Tell whether chance would seldom give it.

        That is Student's test of paired differences, one-sided at a level of 5 %. What was fitted needs it: the best
        of many steps on these data looks better there than it is. Without an error, or without any spread, every
        gain counts.

        >>> Gain(0.25, 0.125, 10).counts, Gain(0.25, 0.2, 10).counts, Gain(0.25, 0.125, 2).counts
        (True, False, False)
        """
        if not self.error or not math.isfinite(self.mean):
            return self.mean > 0
        return bool(students_t.sf(self.mean / self.error, self.parts - 1) <= LEVEL)

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if self.error is None else f" ± {self.error:.4f}")

    def told(self) -> str:
        """Say that a gain does not count."""
        return (
            f"The gain on held-out data, {self} in {self.parts} parts, may be chance, so the start is kept."
        )


def gain(before: PartLosses, after: PartLosses) -> Gain:
    r"""Return by how much a loss is lower.

    .. math:: \bar d = \frac{\sum_i w_i d_i}{\sum_i w_i}, \qquad
        s^2 = \frac{1}{n (n - 1)} \sum_i \Bigl(\frac{w_i}{\bar w} (d_i - \bar d)\Bigr)^2

    with :math:`d_i` the difference on part i of n, and :math:`s` the standard error of :math:`\bar d`.

    Args:
        before, after: losses on the same parts.

    >>> import torch
    >>> once, twice = (PartLosses(torch.tensor(each), torch.ones(3)) for each in ([3.0, 4, 5], [2.0, 2, 2]))
    >>> print(gain(once, twice))
    2.0000 ± 0.5774
    """
    mean = before.mean - after.mean
    counted = before.weights > 0
    weights = before.weights[counted]
    parts = len(weights)
    if not math.isfinite(mean) or parts < 2:
        return Gain(0.0 if math.isnan(mean) else mean, None, parts)
    differences = (before.values - after.values)[counted]
    rest = weights / weights.mean() * (differences - mean)
    return Gain(mean, math.sqrt(rest.square().sum().item() / (parts * (parts - 1))), parts)


def simplest(losses: Sequence[PartLosses]) -> int:
    """Return the first that none is visibly better than.

    The best on held-out data replaces a simpler one only where it gains more than one standard error: Breiman's rule,
    for paired differences.

    Args:
        losses: of alignments, the simplest first, on the same parts.

    >>> import torch
    >>> noisy = [PartLosses(torch.tensor(each), torch.ones(3)) for each in ([1.0, 2, 3], [0.0, 2, 3])]
    >>> clear = PartLosses(torch.tensor([0.5, 1.5, 2.4]), torch.ones(3))
    >>> simplest(noisy), simplest([noisy[0], clear])
    (0, 1)

    Source: Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees" (1984), section 3.4.3.
    """
    best = min(range(len(losses)), key=lambda number: losses[number].mean)
    return next(
        number for number, each in enumerate(losses) if number == best or not gain(each, losses[best]).shows
    )
