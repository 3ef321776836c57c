"""The soft permutation and its gradient in fifty digits: a witness where doubles have none left."""

from __future__ import annotations

import mpmath
import torch
from torch import Tensor


def soft_and_gradient(scores: Tensor, weights: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """P of scores (n, n) and the gradient of ⟨weights, P⟩, both rounded to double precision at the end."""
    n = len(scores)
    with mpmath.workdps(50):
        tau = mpmath.mpf(temperature)
        exponents = mpmath.matrix(scores.double().tolist()) / tau
        potentials = mpmath.matrix(n, 1)
        matrix = _rows(exponents, potentials)
        value = _dual(exponents, potentials)
        for _ in range(300):
            residual = mpmath.matrix([1 - sum(matrix[i, j] for i in range(n)) for j in range(n)])
            flows = [sum(matrix[i, j] * (1 - matrix[i, j]) for i in range(n)) for j in range(n)]
            if max(abs(residual[j]) / flows[j] for j in range(n)) < mpmath.mpf(10) ** -15:
                break
            step, length = _solved(matrix, residual), mpmath.mpf(1)
            length = min(length, 4 / max(abs(entry) for entry in step))
            while _dual(exponents, potentials + length * step) > value:
                length /= 2
            potentials += length * step
            matrix, value = _rows(exponents, potentials), _dual(exponents, potentials)
        given = mpmath.matrix(weights.double().tolist())
        means = [sum(matrix[i, j] * given[i, j] for j in range(n)) for i in range(n)]
        right_side = mpmath.matrix(
            [sum(matrix[i, j] * (given[i, j] - means[i]) for i in range(n)) for j in range(n)]
        )
        beta = _solved(matrix, right_side)
        betas = [sum(matrix[i, j] * beta[j] for j in range(n)) for i in range(n)]
        gradient = [
            [matrix[i, j] * (given[i, j] - means[i] - beta[j] + betas[i]) / tau for j in range(n)]
            for i in range(n)
        ]
        found = [[float(matrix[i, j]) for j in range(n)] for i in range(n)]
        return torch.tensor(found).double(), torch.tensor(
            [[float(x) for x in row] for row in gradient]
        ).double()


def _rows(exponents: mpmath.matrix, potentials: mpmath.matrix) -> mpmath.matrix:
    """The softmax of every row."""
    n = exponents.rows
    entries = [[mpmath.exp(exponents[i, j] + potentials[j]) for j in range(n)] for i in range(n)]
    return mpmath.matrix([[entry / sum(row) for entry in row] for row in entries])


def _dual(exponents: mpmath.matrix, potentials: mpmath.matrix) -> mpmath.mpf:
    """What the potentials minimize."""
    n = exponents.rows
    sums = (sum(mpmath.exp(exponents[i, j] + potentials[j]) for j in range(n)) for i in range(n))
    return sum(mpmath.log(total) for total in sums) - sum(potentials)


def _solved(matrix: mpmath.matrix, right_side: mpmath.matrix) -> mpmath.matrix:
    """The solution of (diag(column sums) − PᵀP) x = r whose last entry is zero."""
    n = matrix.rows
    system = -(matrix.T * matrix)
    for j in range(n):
        system[j, j] += sum(matrix[i, j] for i in range(n))
    head = mpmath.lu_solve(system[: n - 1, : n - 1], right_side[: n - 1, 0])
    return mpmath.matrix([*head, 0])
