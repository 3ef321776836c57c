"""Linear least squares from sums over batches."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin.merging.normal_equations import solved
from sinkhorn_rebasin.networks.architecture import single_precision


class LeastSquares:
    r"""Gather what least squares need, batch by batch.

    .. math:: \min_W \sum_n \lVert W x_n - t_n \rVert^2 + \lambda s\, \lVert W - W_0 \rVert^2, \qquad
        W = (\lambda s W_0 + T^\top X)(X^\top X + \lambda s)^{-1}

    with s the mean of the diagonal of :math:`X^\top X`, so that λ has no unit. A constant input of one gives an
    intercept.

    >>> sums = LeastSquares(intercept=True)
    >>> x = torch.tensor([[0.0], [1.0], [2.0]])
    >>> sums.update(x, 3 * x + 1)
    >>> weight, intercept = sums.solve(torch.zeros(1, 1), torch.zeros(1), 0.0)
    >>> round(weight.item(), 6), round(intercept.item(), 6)
    (3.0, 1.0)
    """

    def __init__(self, intercept: bool) -> None:
        self.intercept, self.count = intercept, 0
        self.gram = self.cross = self.square = torch.zeros(0)

    def update(self, inputs: Tensor, targets: Tensor) -> None:
        """Take in samples: inputs (samples, features), targets (samples, outputs)."""
        inputs, targets = single_precision(inputs), single_precision(targets)
        if self.intercept:
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        # In float32 the sums of one batch are exact enough; over many batches, or in half precision, they are not.
        sums = [
            (inputs.mT @ inputs).double(),
            (targets.mT @ inputs).double(),
            targets.double().square().sum(0),
        ]
        if self.count:
            sums = [new + old for new, old in zip(sums, (self.gram, self.cross, self.square), strict=True)]
        self.gram, self.cross, self.square = sums
        self.count += len(inputs)

    def solve(
        self, weight: Tensor, intercept: Tensor | None, ridge: float, layer: str = ""
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weight (outputs, features), and the intercept.

        Args:
            weight, intercept: :math:`W_0`, which the ridge draws to.
            ridge: λ.
            layer: named where it cannot be solved.

        Raises:
            DataError: the sums are singular.
        """
        prior = weight
        if self.intercept and intercept is not None:
            prior = torch.cat([weight, intercept[:, None]], 1)
        gram, cross, mean = (part.to(self.gram)[None] for part in (self.gram, self.cross.mT, prior.mT))
        found = solved(gram, cross, mean, ridge, layer=layer)[0].mT
        return (found[:, :-1], found[:, -1]) if self.intercept else (found, None)

    def output_moments(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and unbiased variance of W x.

        They are over all samples; an intercept is needed.
        """
        total = self.gram[-1, :-1]
        mean = total / self.count
        covariance = (self.gram[:-1, :-1] - mean[:, None] * total) / max(self.count - 1, 1)
        variance = ((weight @ covariance) * weight).sum(1).clamp_min(0.0)
        return weight @ mean, variance
