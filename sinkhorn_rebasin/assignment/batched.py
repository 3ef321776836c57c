"""Sinkhorn on many score matrices: small ones of one size run as one batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.sinkhorn import SinkhornResult, sinkhorn

LARGEST_BATCHED_SIZE = 128
"""Of larger matrices the products cost more than the calls."""


def sinkhorn_by_size(
    scores: Mapping[str, Tensor],
    temperature: float,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    initial_scalings: Mapping[str, Tensor],
) -> dict[str, SinkhornResult]:
    """Run :func:`sinkhorn` on scores grouped by size.

    Scores are (n, n) or (blocks, n, n). Those of one small size run together.

    Args:
        scores: name to score matrices.
        temperature, tolerance, max_iterations: as in :func:`sinkhorn`.
        initial_scalings: name to the column scalings to start from, (n,) or (blocks, n).

    Example:
        >>> scores = {"one": torch.randn(4, 4), "two": torch.randn(2, 4, 4)}
        >>> start = {name: torch.zeros_like(value[..., 0]) for name, value in scores.items()}
        >>> results = sinkhorn_by_size(scores, 0.5, initial_scalings=start)
        >>> torch.allclose(results["two"].matrix.sum(-1), torch.ones(2, 4), atol=1e-3)
        True
    """
    results = {}
    for names in _batches(scores):
        result = sinkhorn(
            _stacked((scores[name] for name in names), axes=2),
            temperature,
            tolerance=tolerance,
            max_iterations=max_iterations,
            initial_scaling=_stacked((initial_scalings[name] for name in names), axes=1),
        )
        start = 0
        for name in names:
            shape = scores[name].shape
            part = slice(start, start := start + shape[:-2].numel())
            results[name] = replace(
                result,
                matrix=result.matrix[part].reshape(shape),
                marginal_error=result.marginal_error[part].reshape(shape[:-2]),
                column_scaling=result.column_scaling[part].reshape(shape[:-1]),
            )
    return results


def _batches(scores: Mapping[str, Tensor]) -> list[list[str]]:
    batches: dict[int | str, list[str]] = {}
    for name, value in scores.items():
        size = value.shape[-1]
        batches.setdefault(size if size <= LARGEST_BATCHED_SIZE else name, []).append(name)
    return list(batches.values())


def _stacked(tensors: Iterable[Tensor], axes: int) -> Tensor:
    """Stack tensors with the same last axes."""
    return torch.cat([tensor.reshape(-1, *tensor.shape[tensor.dim() - axes :]) for tensor in tensors])
