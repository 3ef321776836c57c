"""Least squares of several linear layers by their normal equations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin.curvature.gram import LayerGram
from sinkhorn_rebasin.errors import DataError


def fitted_weight(
    grams: Sequence[Tensor],
    weights: Sequence[Tensor],
    shares: Sequence[float],
    ridge: float,
    *,
    layer: str = "",
) -> Tensor:
    r"""Solve for one weight that replaces several.

    It gives on all inputs what each network gives on its own.

    .. math:: W = \Bigl(\sum_m w_m G_m + \lambda I\Bigr)^{-1} \sum_m w_m (G_m + \lambda I)\, W_m, \qquad
        \lambda = \frac{\varepsilon}{n} \operatorname{tr} \sum_m w_m G_m

    It minimizes :math:`\sum_m w_m \bigl(\mathbb E\,\lVert x_m^\top (W - W_m) \rVert^2 + \lambda
    \lVert W - W_m \rVert^2\bigr)`: where inputs say nothing, the plain mean stays.

    Args:
        grams: G, (groups, inputs, inputs) each.
        weights: W, (groups, inputs, outputs) each.
        shares: w.
        ridge: ε.
        layer: named where it cannot be solved.

    Returns:
        (groups, inputs, outputs), in float64.

    Raises:
        DataError: the matrices are singular.

    >>> gram = torch.diag(torch.tensor([1.0, 3.0]))[None]
    >>> ones, zeros = torch.ones(1, 2, 1), torch.zeros(1, 2, 1)
    >>> weight = fitted_weight([gram, gram.flip(1, 2)], [ones, zeros], [0.5, 0.5], 0.0)
    >>> [round(each, 6) for each in weight.flatten().tolist()]
    [0.25, 0.75]
    """
    cross = [gram.double() @ weight.double() for gram, weight in zip(grams, weights, strict=True)]
    mean = weighted_sum(weights, shares)
    return solved(weighted_sum(grams, shares), weighted_sum(cross, shares), mean, ridge, layer=layer)


def solved(gram: Tensor, cross: Tensor, mean: Tensor, ridge: float, *, layer: str = "") -> Tensor:
    r"""Solve normal equations with a ridge.

    The ridge leads to a mean.

    .. math:: (G + \lambda I)\, W = C + \lambda \bar W, \qquad \lambda = \varepsilon \operatorname{tr} G / n

    Args:
        gram: G, (groups, inputs, inputs), in float64.
        cross: C, (groups, inputs, outputs).
        mean: where the ridge leads to, like C.
        ridge: ε.
        layer: named where it cannot be solved.

    Raises:
        DataError: the matrix is singular.

    >>> solved(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1), 1e-6).item()
    1.0
    """
    size = gram.shape[-1]
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    # Without any input that is not zero, nothing but the ridge decides.
    strength = torch.where(scale > 0, ridge * scale, torch.ones_like(scale))[:, None, None]
    regular = gram + strength * torch.eye(size, dtype=gram.dtype)
    factor, problem = torch.linalg.cholesky_ex(regular)
    solution = torch.cholesky_solve(cross + strength * mean, factor)
    if bool(problem.any()) or not bool(solution.isfinite().all()):
        raise DataError(
            f"Expected Gram matrices of layer {layer!r} that can be inverted but got singular ones of {size} inputs "
            f"at ridge={ridge:g}: pass a larger ridge=, or measure on more samples."
        )
    return solution


def weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the sum of tensors times shares, in float64."""
    return torch.stack([tensor.double() * share for tensor, share in zip(tensors, shares, strict=True)]).sum(
        0
    )


def shrunk(gram: Tensor, alpha: float) -> Tensor:
    r"""Scale what is off the diagonal.

    This is :math:`\alpha G + (1 - \alpha) \operatorname{diag} G`.

    >>> shrunk(torch.ones(1, 2, 2), 0.25).tolist()
    [[[1.0, 0.25], [0.25, 1.0]]]
    """
    return alpha * gram + (1 - alpha) * torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))


def check_gram(layer: LayerGram, name: str, number: int, shape: Sequence[int]) -> None:
    """Raise DataError unless a Gram matrix fits.

    It must be one of a weight of this shape.

    Args:
        layer: what was measured.
        name: of the layer.
        number: of the network.
        shape: of the weight.
    """
    matrix, of = layer.matrix, f"the Gram matrix of layer {name!r} of network {number}"
    groups, inputs = (matrix.shape[0] if matrix.ndim == 3 else 0), int(layer.bias is not None)
    size = inputs + torch.Size(shape[1:]).numel()
    if tuple(matrix.shape) != (groups, size, size) or not groups or shape[0] % groups:
        raise DataError(
            f"Expected {of} in shape (groups, {size}, {size}), as the weight of shape {tuple(shape)} takes, but got "
            f"{tuple(matrix.shape)}: measure it on this network."
        )
    if not bool(matrix.isfinite().all()):
        raise DataError(f"Expected {of} to be finite but some of its numbers are infinite or NaN.")
    if not torch.allclose(matrix, matrix.mT, rtol=1e-4, atol=1e-6 * float(matrix.abs().max())):
        raise DataError(f"Expected {of} to be symmetric but it differs from its transpose.")
