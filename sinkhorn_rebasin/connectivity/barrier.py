"""Arithmetic of a path's losses: how far they rise above the chord between the two ends."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import DataError


def excess(positions: Tensor, losses: Tensor) -> Tensor:
    """Return the loss above the chord.

    It is loss(λ) − [(1−λ)·loss(0) + λ·loss(1)] at every position.

    Args:
        positions: (points,), ascending; its first and last entries are the ends of the chord.
        losses: (..., points), the loss at each position; leading dimensions are independent paths.

    Returns:
        (..., points), in the unit of the loss; zero at both ends, negative below the chord.

    Raises:
        DataError: the positions are not one ascending row of at least two, or the losses do not fit them.

    Example:
        >>> bump = excess(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
        >>> bump.tolist() == [0.0, 3.0, 0.0]
        True
    """
    check_positions(positions)
    if losses.ndim == 0 or losses.shape[-1] != positions.shape[0]:
        raise DataError(
            f"Expected one loss for each of the {positions.shape[0]} positions along the last dimension"
            f" but got losses of shape {tuple(losses.shape)}."
        )
    fraction = (positions - positions[0]) / (positions[-1] - positions[0])
    fraction = fraction.to(losses)
    return losses - torch.lerp(losses[..., :1], losses[..., -1:], fraction)


def barrier(positions: Tensor, losses: Tensor) -> Tensor:
    """Return how far losses rise above their chord.

    This is max over λ of loss(λ) − [(1−λ)·loss(0) + λ·loss(1)], clipped at 0.

    Args:
        positions: (points,), ascending from one end of the path to the other.
        losses: (..., points).

    Returns:
        (...), in the unit of the loss, never negative; NaN where a loss is NaN.

    Raises:
        DataError: as for :func:`excess`.

    Example:
        >>> positions = torch.linspace(0, 1, 5)
        >>> barrier(positions, 4 * positions * (1 - positions)).item() == 1.0
        True

    Reference: Frankle, Dziugaite, Roy, Carbin, "Linear Mode Connectivity and the Lottery Ticket
    Hypothesis", 2020; Entezari, Sedghi, Saukh, Neyshabur, 2022.
    """
    return excess(positions, losses).amax(dim=-1)  # the ends are exactly 0, which is the clipping


def area_under_curve(positions: Tensor, losses: Tensor, *, signed: bool = False) -> Tensor:
    """Return the area between losses and their chord.

    It follows the trapezoid rule over the positions. Only what lies above the chord counts: the difference is clipped
    at 0 at every position, so that a dip in one place cannot pay for a bump in another and the area is zero exactly
    when the barrier is. Where the losses cross the chord between two positions, this is more than the area above the
    chord of the losses joined by straight lines: the crossing itself is not looked for. With ``signed=True`` nothing
    is clipped and what lies below counts as negative.

    Args:
        positions: (points,), ascending from one end of the path to the other.
        losses: (..., points).
        signed: count what lies below the chord as negative area.

    Returns:
        (...), in the unit of the loss (the path has length one).

    Raises:
        DataError: as for :func:`excess`.

    Example:
        >>> positions = torch.linspace(0, 1, 101, dtype=torch.float64)
        >>> area = area_under_curve(positions, 6 * positions * (1 - positions))
        >>> bool(abs(area - 1) < 1e-3)
        True

    Reference: Peña, Medeiros, Dubail, Aminbeidokhti, Granger, Pedersoli, "Re-basin via implicit Sinkhorn
    differentiation", 2023, which reports this area beside the barrier.
    """
    difference = excess(positions, losses)
    if not signed:
        difference = difference.clamp(min=0)
    length = positions[-1] - positions[0]
    return torch.trapezoid(difference, ((positions - positions[0]) / length).to(difference), dim=-1)


def check_positions(positions: Tensor) -> None:
    """Raise DataError unless positions ascend in one row.

    There must be at least two.
    """
    if positions.ndim != 1 or positions.shape[0] < 2:
        raise DataError(
            f"Expected at least two positions, of shape (points,), but got shape {tuple(positions.shape)}."
        )
    if not bool((positions.diff() > 0).all()):
        raise DataError(f"Expected strictly ascending positions but got {positions.tolist()}.")
