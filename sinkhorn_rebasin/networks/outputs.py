"""Comparing what networks return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def largest_change(before: Any, after: Any) -> float:
    """Largest difference between two outputs over the largest value of the first; NaN counts as infinite."""
    worst = 0.0
    for one, other in zip(_tensors(before), _tensors(after), strict=True):
        if one.numel() == 0:
            continue
        one, other = one.double(), other.double()
        same = (one == other) | (one.isnan() & other.isnan())
        difference = torch.where(same, 0.0, (one - other).abs()).max()
        scale = one[one.isfinite()].abs().max() if bool(one.isfinite().any()) else one.new_ones(())
        value = float(difference / scale.clamp_min(torch.finfo(torch.float64).tiny))
        worst = max(worst, value if value == value else float("inf"))
    return worst


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
