"""Independent answers: plain Sinkhorn in logarithms and the bordered linear system, float64, written out."""

from __future__ import annotations

import torch
from torch import Tensor


def plain_sinkhorn(scores: Tensor, temperature: float, iterations: int = 20_000) -> Tensor:
    """Alternate normalisation of rows and columns in logarithms."""
    log_matrix = scores.double() / temperature
    for _ in range(iterations):
        log_matrix = log_matrix - log_matrix.logsumexp(-1, keepdim=True)
        column = log_matrix.logsumexp(-2, keepdim=True)
        log_matrix = log_matrix - column
        if float(column.abs().max()) < 1e-14:
            break
    return log_matrix.exp()


def exact_gradient(matrix: Tensor, gradient: Tensor, temperature: float) -> Tensor:
    """dL/dX from the full (2n) x (2n) system by its pseudo-inverse, the null direction removed."""
    weighted = matrix * gradient
    system = torch.cat(
        [
            torch.cat([torch.diag(matrix.sum(1)), matrix], 1),
            torch.cat([matrix.T, torch.diag(matrix.sum(0))], 1),
        ]
    )
    sums = torch.cat([weighted.sum(1), weighted.sum(0)])
    n = matrix.shape[0]
    potentials = torch.linalg.pinv(system, hermitian=True, rtol=1e-13) @ sums
    return (weighted - matrix * (potentials[:n, None] + potentials[None, n:])) / temperature


def relative_error(actual: Tensor, expected: Tensor) -> float:
    difference = actual.detach().double() - expected.detach().double()
    return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(expected.detach().double()))


def exact_error(matrix: Tensor) -> float:
    """Largest deviation of a row or column sum from one, added up in float64."""
    exact = matrix.detach().double()
    return max(float((exact.sum(axis) - 1).abs().max()) for axis in (-1, -2))
