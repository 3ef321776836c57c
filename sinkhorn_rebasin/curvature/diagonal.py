"""The diagonal of the Fisher information: how much the loss bends along every single parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, StateLike
from sinkhorn_rebasin.curvature.likelihood import LabelKind, likelihood_of
from sinkhorn_rebasin.curvature.measured_network import MeasuredNetwork
from sinkhorn_rebasin.curvature.per_sample import SquaredGradients
from sinkhorn_rebasin.curvature.quadratic import entry, matched
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.task_loss import task_loss


@dataclass(frozen=True, repr=False)
class DiagonalFisher:
    r"""Hold the diagonal of a network's Fisher information.

    .. math:: F_i = \mathbb E[(\partial_i \log p(y \mid x))^2]

    Attributes:
        diagonal: per parameter, tied ones under their first name, a tensor of its shape; of complex numbers the
            real and imaginary parts belong to those of the parameter.
        samples: how many samples it is the mean over.
    """

    diagonal: Mapping[str, Tensor]
    samples: int

    def __repr__(self) -> str:
        values = sum(tensor.numel() for tensor in self.diagonal.values())
        return (
            f"DiagonalFisher({values} values of {len(self.diagonal)} tensors: {listed(self.diagonal)}; "
            f"trace {self.trace():.5g}, mean over {self.samples} samples)"
        )

    def quadratic(self, difference: StateLike) -> Tensor:
        r"""Compute :math:`\delta^\top F \delta = \sum_i F_i\, \delta_i^2`.

        It is differentiable in the difference δ.
        """
        return diagonal_quadratic(self.diagonal, difference)

    def trace(self) -> float:
        r"""Sum the diagonal, :math:`\sum_i F_i`."""
        return sum(float(real_view(values).sum()) for values in self.diagonal.values())

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> DiagonalFisher:
        """Copy to another device or type."""
        return replace(self, diagonal={n: value.to(device, dtype) for n, value in self.diagonal.items()})


def diagonal_quadratic(diagonal: StateLike, difference: StateLike) -> Tensor:
    """Sum F_i δ_i² over the parameters of a diagonal.

    Without parameters the sum is zero.
    """
    terms = []
    for name, values in diagonal.items():
        change = real_view(entry(difference, name, values.shape))
        terms.append((matched(real_view(values), change) * change.square()).sum())
    return torch.stack(terms).sum() if terms else torch.zeros((), device="cpu")


@torch.inference_mode(False)
def diagonal_fisher(
    network: nn.Module,
    data: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    labels: LabelKind = "sampled",
    draws: int = 1,
    class_axis: int | None = None,
    chunk_size: int | None = 64,
    batches: int | None = None,
    generator: torch.Generator | None = None,
    batch: BatchAdapter | None = None,
) -> DiagonalFisher:
    r"""Measure each parameter's mean squared gradient.

    The gradients are those of each sample's loss.

    .. math:: F_i = \frac1N \sum_n \mathbb E_y \bigl(\partial_{\theta_i} \ell(f_\theta(x_n), y)\bigr)^2

    in nats when the criterion is a negative log-likelihood. The network runs in eval mode, one sample at a time
    under ``vmap``; what vmap cannot run is differentiated sample by sample, with a :class:`RebasinWarning`.

    Args:
        network: the network; neither it nor its mode is changed.
        data: batches of (inputs, labels), or of inputs alone unless ``labels="observed"``; every tensor has the
            samples along axis 0.
        criterion: (outputs, labels) to a scalar, called on one sample at a time; without one :func:`task_loss`.
        labels: the y: ``"sampled"`` draws them from the network's softmax, which gives the Fisher information;
            ``"expected"`` is its exact value, at one backward pass per class; ``"observed"`` takes the labels of the
            data, the empirical Fisher, which vanishes where the data are fitted.
        draws: labels drawn per sample.
        class_axis: axis of the outputs with the classes, for ``"sampled"``; None is 1, and the last of ``logits`` of
            tokens.
        chunk_size: samples differentiated at once, each with gradients of its own; None is a whole batch.
        batches: read at most this many batches; None reads all.
        generator: draws the labels; without it one of its own, so that two calls agree.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Complexity: draws (or classes) times a forward and backward pass per sample; memory chunk_size times the network.

    Raises:
        ArchitectureError: when the network does not return one tensor.
        DataError: when there is no sample, or a tensor lacks the axis of samples.
        LossError: when labels cannot be drawn from these outputs.

    Example:
        >>> layer, x = nn.Linear(2, 2, bias=False), torch.tensor([[1.0, 3.0]])
        >>> fisher = diagonal_fisher(layer, [x], labels="expected")
        >>> p = layer(x).softmax(1)[0]
        >>> torch.allclose(fisher.diagonal["weight"], torch.outer(p * (1 - p), x[0].square()), atol=1e-5)
        True

    Source: the labels: Kunstner, Balles, Hennig, "Limitations of the empirical Fisher approximation" (2019).
    """
    measured = MeasuredNetwork(network, likelihood_of(criterion, labels, draws, class_axis, generator))
    sums = SquaredGradients(measured.network, measured.state, measured.names, measured.likelihood, chunk_size)

    def take(inputs: Any, observed: Any) -> int:
        """Take in a batch; return its number of samples."""
        with torch.no_grad():
            outputs = run_at(measured.network, measured.state, inputs)
        for chosen, weights in measured.likelihood.weighted_labels(outputs, observed):
            with torch.enable_grad():
                sums.update(inputs, chosen, weights)
        return len(measured.likelihood.scores(outputs))

    samples = measured.over_samples(take, data, batches, batch)
    return DiagonalFisher({name: value / samples for name, value in sums.sums.items()}, samples)
