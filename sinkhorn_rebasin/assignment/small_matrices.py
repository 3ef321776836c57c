"""Small score matrices on the processor: the way to their soft permutations, and back, in double precision."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.small_gradient import small_tangent_residual
from sinkhorn_rebasin.assignment.small_kernel import Array, Given, SmallKernel
from sinkhorn_rebasin.assignment.small_solver import balanced, iterate

__all__ = ["is_small", "small_residual", "small_scaling"]

LARGEST = 256
"""Size up to which calls of NumPy pay; beyond it the products decide, and single precision halves their memory."""


def is_small(tensor: Tensor) -> bool:
    """Tell whether matrices (..., n, n) are solved without tensors.

    >>> is_small(torch.zeros(4, 4)), is_small(torch.zeros(999, 999))
    (True, False)
    """
    return tensor.shape[-1] <= LARGEST and tensor.device.type == "cpu" and tensor.layout == torch.strided


def small_scaling(
    scores: Tensor, temperature: float, target: float, max_iterations: int, potential: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Make small matrices doubly stochastic.

    Args:
        scores: X, (B, n, n), finite.
        temperature: τ > 0.
        target: largest deviation of a column sum from one; row sums are exact.
        max_iterations: most iterations to spend.
        potential: y = τ·log v to start from, (B, n).

    Returns:
        P, its marginal error (B,), the potential, mean zero, and the iterations spent.

    >>> matrix, error, _, _ = small_scaling(torch.eye(3)[None], 0.5, 1e-9, 99, torch.zeros(1, 3))
    >>> bool((matrix.double().sum(1) - 1).abs().max() < 1e-6), bool(error < 1e-6)
    (True, True)
    """
    # As of large matrices: nothing that small changes a sum, and processors are slow at subnormal numbers.
    limits = torch.finfo(scores.dtype)
    smallest = limits.tiny / limits.eps
    # Whatever a program has NumPy do at underflows, which are harmless here.
    with np.errstate(all="ignore"):
        kernel = SmallKernel(_array(scores), temperature, _wide(potential)[..., None])
        spent = iterate(kernel, target, max_iterations)
        logarithm, matrix = kernel.offset + kernel.log_v, kernel.into_matrix()
        matrix, logarithm, steps = balanced(matrix, logarithm, max_iterations - spent, smallest)
    if matrix.min() < smallest:
        matrix[matrix < smallest] = 0
    logarithm -= logarithm.mean(-2, keepdims=True)
    found = torch.empty_like(scores, memory_format=torch.contiguous_format)
    rounded = found.numpy()
    with np.errstate(all="ignore"):
        rounded[...] = matrix
    rows, columns = rounded.sum(-1, dtype=np.float64), np.ones(len(rounded[0])) @ matrix
    error = np.maximum(np.abs(rows - 1).max(-1), np.abs(columns - 1).max(-1))
    return found, _like(error, scores), _like(logarithm[..., 0] * temperature, scores), spent + steps


def small_residual(matrix: Tensor, gradient: Tensor) -> Tensor:
    """Return R of small matrices P and gradients G, (B, n, n).

    >>> small_residual(torch.full((1, 2, 2), 0.5), torch.eye(2)[None])[0].tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    found = torch.empty_like(matrix, memory_format=torch.contiguous_format)
    with np.errstate(all="ignore"):
        found.numpy()[...] = small_tangent_residual(_array(matrix), _array(gradient))
    return found


def _array(tensor: Tensor) -> Given:
    """Read a tensor's memory; a lazy negative, as of the imaginary part of a conjugate, is worked out."""
    return tensor.numpy(force=True)


def _wide(tensor: Tensor) -> Array:
    return _array(tensor).astype(np.float64)


def _like(array: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.dtype)
