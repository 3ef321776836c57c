"""Small score matrices on the processor: the way to their soft permutations, and back, in double precision."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.flat_gradient import LARGEST_ENTRY, flat_tangent_residual, works_in
from sinkhorn_rebasin.assignment.small_gradient import small_tangent_residual
from sinkhorn_rebasin.assignment.small_kernel import Array, Given, SmallKernel
from sinkhorn_rebasin.assignment.small_solver import balanced, iterate

SINGLE_FROM = 2e-5
"""Deviation of a sum from one that single precision tells from rounding."""

SMALL_SPREAD = 30.0
"""Of exponents that are far from what single precision holds."""

__all__ = ["is_small", "small_residual", "small_scaling"]

LARGEST = 512
"""Size up to which calls of NumPy pay; beyond it the products decide, and single precision halves their memory."""


def is_small(tensor: Tensor) -> bool:
    """Tell whether matrices (..., n, n) are solved without tensors.

    >>> is_small(torch.zeros(4, 4)), is_small(torch.zeros(999, 999))
    (True, False)
    """
    return tensor.shape[-1] <= LARGEST and tensor.device.type == "cpu" and tensor.layout == torch.strided


def small_scaling(
    scores: Tensor, temperature: float, target: float, max_iterations: int, potential: Tensor, spread: float
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Make small matrices doubly stochastic.

    Args:
        scores: X, (B, n, n), finite.
        temperature: τ > 0.
        target: largest deviation of a column sum from one; row sums are exact.
        max_iterations: most iterations to spend.
        potential: y = τ·log v to start from, (B, n).
        spread: of the exponents X / τ; single precision is enough where it is small.

    Returns:
        P, its marginal error (B,), the potential, mean zero, and the iterations spent.

    >>> matrix, error, _, _ = small_scaling(torch.eye(3)[None], 0.5, 1e-9, 99, torch.zeros(1, 3), 2.0)
    >>> bool((matrix.double().sum(1) - 1).abs().max() < 1e-6), bool(error < 1e-6)
    (True, True)
    """
    # As of large matrices: nothing that small changes a sum, and processors are slow at subnormal numbers.
    limits = torch.finfo(scores.dtype)
    smallest = limits.tiny / limits.eps
    # Whatever a program has NumPy do at underflows, which are harmless here.
    given = _array(scores)
    kind = np.float32 if target > SINGLE_FROM and spread < SMALL_SPREAD else np.float64
    kind = kind if works_in(given) is np.float32 else np.float64
    found = torch.empty_like(scores, memory_format=torch.contiguous_format)
    rounded = found.numpy()
    with np.errstate(all="ignore"):
        kernel = SmallKernel(given, temperature, _wide(potential)[..., None], kind)
        spent = iterate(kernel, target, max_iterations)
        logarithm, matrix = kernel.offset + kernel.log_v, kernel.into_matrix(rounded)
        matrix, logarithm, steps = balanced(matrix, logarithm, max_iterations - spent, smallest)
    if matrix.min() < smallest:
        matrix[matrix < smallest] = 0
    logarithm -= logarithm.mean(-2, keepdims=True)
    if matrix is not rounded:
        with np.errstate(all="ignore"):
            rounded[...] = matrix
    ones = np.ones(matrix.shape[-1], dtype=matrix.dtype)
    rows = matrix @ ones if kind is np.float32 else rounded.sum(-1, dtype=np.float64)
    columns = ones @ matrix
    error = np.maximum(np.abs(rows - 1).max(-1), np.abs(columns - 1).max(-1))
    return found, _like(error, scores), _like(logarithm[..., 0] * temperature, scores), spent + steps


def small_residual(matrix: Tensor, gradient: Tensor) -> Tensor:
    """Return R of small matrices P and gradients G, (B, n, n).

    >>> small_residual(torch.full((1, 2, 2), 0.5), torch.eye(2)[None])[0].tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    found = torch.empty_like(matrix, memory_format=torch.contiguous_format)
    values, change = _array(matrix), _array(gradient)
    with np.errstate(all="ignore"):
        residual = flat_tangent_residual(values, change) if values.max() < LARGEST_ENTRY else None
        found.numpy()[...] = small_tangent_residual(values, change) if residual is None else residual
    return found


def _array(tensor: Tensor) -> Given:
    """Read a tensor's memory.

    A lazy negative, as of the imaginary part of a conjugate, is worked out.
    """
    return tensor.numpy(force=True)


def _wide(tensor: Tensor) -> Array:
    return _array(tensor).astype(np.float64)


def _like(array: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.dtype)
