"""Temperature schedules: pure functions from the progress of a run to a temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from sinkhorn_rebasin.errors import AssignmentError

__all__ = ["TemperatureSchedule", "constant", "cosine", "geometric", "linear"]

TemperatureSchedule: TypeAlias = Callable[[float], float]
"""Progress of the run in [0, 1] to a temperature > 0; progress outside is clamped."""


def check_temperature(value: object) -> None:
    """Raise AssignmentError unless a temperature is positive.

    >>> check_temperature(0.5)
    """
    if not isinstance(value, (int, float, Tensor)) or not 0 < float(value) < math.inf:
        raise AssignmentError(f"Expected temperature to be a positive finite number but got {value!r}.")


def constant(value: float) -> TemperatureSchedule:
    r"""Keep one temperature, :math:`\tau(p) = \tau_0`.

    Args:
        value: The temperature, > 0.

    Raises:
        AssignmentError: ``value`` is not a positive finite number.

    Example:
        >>> constant(0.5)(0.0) == constant(0.5)(1.0) == 0.5
        True
    """
    return geometric(value, value)


def geometric(start: float, end: float) -> TemperatureSchedule:
    r"""Change the temperature by equal factors.

    It falls (or rises) as :math:`\tau(p) = \tau_0^{1-p}\,\tau_1^p`.

    Args:
        start: Temperature at progress 0, > 0.
        end: Temperature at progress 1, > 0.

    Raises:
        AssignmentError: A temperature is not a positive finite number.

    Example:
        >>> schedule = geometric(1.0, 0.01)
        >>> schedule(0.0), round(schedule(0.5), 12), schedule(1.0)
        (1.0, 0.1, 0.01)
    """
    return _between(start, end, lambda p: start * (end / start) ** p)


def linear(start: float, end: float) -> TemperatureSchedule:
    r"""Change the temperature by equal amounts.

    It falls (or rises) as :math:`\tau(p) = (1-p)\,\tau_0 + p\,\tau_1`.

    Args:
        start: Temperature at progress 0, > 0.
        end: Temperature at progress 1, > 0.

    Raises:
        AssignmentError: A temperature is not a positive finite number.

    Example:
        >>> schedule = linear(1.0, 0.5)
        >>> schedule(0.0), schedule(0.5), schedule(7.0)
        (1.0, 0.75, 0.5)
    """
    return _between(start, end, lambda p: (1.0 - p) * start + p * end)


def cosine(start: float, end: float) -> TemperatureSchedule:
    r"""Change the temperature slowly at both ends.

    It is :math:`\tau(p)=\tau_1+(\tau_0-\tau_1)(1+\cos\pi p)/2`.

    Args:
        start: Temperature at progress 0, > 0.
        end: Temperature at progress 1, > 0.

    Raises:
        AssignmentError: A temperature is not a positive finite number.

    Example:
        >>> schedule = cosine(1.0, 0.5)
        >>> schedule(0.0), round(schedule(0.5), 12), schedule(1.0)
        (1.0, 0.75, 0.5)
        >>> 1.0 - schedule(0.1) < 1.0 - linear(1.0, 0.5)(0.1)
        True

    Source:
        I. Loshchilov, F. Hutter, SGDR (2017), for the shape.
    """
    return _between(start, end, lambda p: end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * p)))


def _between(start: float, end: float, interior: TemperatureSchedule) -> TemperatureSchedule:
    """Clamp the progress and make both ends exact."""
    for name, value in (("start", start), ("end", end)):
        if not (math.isfinite(value) and value > 0):
            raise AssignmentError(
                f"Expected the {name} of a temperature schedule to be positive and finite but got {value}."
            )

    def schedule(progress: float) -> float:
        """Return the temperature at a progress."""
        if math.isnan(progress):
            raise AssignmentError("Expected the progress to be a number in [0, 1] but got nan.")
        if progress <= 0.0:
            return float(start)
        if progress >= 1.0:
            return float(end)
        return float(interior(progress))

    return schedule
