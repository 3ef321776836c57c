"""How far the ways around several networks are from the identity."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch

from sinkhorn_rebasin.matching.base import Alignment


def cycle_error(ways: Mapping[tuple[int, int], Alignment]) -> float:
    r"""Return the share of units moved around three networks.

    .. math:: \frac{1}{|C|} \sum_{(p, q, r) \in C} \frac{1}{n} \sum_i \bigl[\,
        (\pi_{p \leftarrow q} \circ \pi_{q \leftarrow r} \circ \pi_{r \leftarrow p})(i) \ne i \,\bigr]

    Zero where all were aligned together. Pairs that were aligned apart contradict each other.

    Args:
        ways: alignments by the numbers of the networks that they lead to and start from.

    Returns:
        From 0 to 1; 0 where there are no three networks.

    Source: Crisostomi et al., "C2M3: Cycle-Consistent Multi-Model Merging" (2024).
    """
    numbers = sorted({number for pair in ways for number in pair})
    shares = []
    for p, q, r in itertools.combinations(numbers, 3):
        around = ways[p, q].compose(ways[q, r]).compose(ways[r, p])
        moved = [_moved_units(order) for order in around.permutations.values()]
        shares.append(sum(moved) / max(1, sum(order.numel() for order in around.permutations.values())))
    return sum(shares) / len(shares) if shares else 0.0


def _moved_units(order: torch.Tensor) -> int:
    return int((order != torch.arange(order.shape[-1], device=order.device)).sum())
