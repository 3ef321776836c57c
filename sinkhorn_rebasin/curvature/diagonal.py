"""The diagonal of the Fisher information: how much the loss bends along every single parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, State, StateLike
from sinkhorn_rebasin.curvature.likelihood import LabelKind, Likelihood
from sinkhorn_rebasin.curvature.per_sample import SquaredGradients
from sinkhorn_rebasin.curvature.quadratic import entry, matched
from sinkhorn_rebasin.errors import DataError, listed
from sinkhorn_rebasin.networks.architecture import named_tensors, real_view
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.counting import with_counted_labels
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.support import check_supported


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
    criterion: Criterion = F.cross_entropy,
    *,
    labels: LabelKind = "sampled",
    draws: int = 1,
    class_axis: int = 1,
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
        criterion: (outputs, labels) to a scalar, called on one sample at a time.
        labels: the y: ``"sampled"`` draws them from the network's softmax, which gives the Fisher information;
            ``"expected"`` is its exact value, at one backward pass per class; ``"observed"`` takes the labels of the
            data, the empirical Fisher, which vanishes where the data are fitted.
        draws: labels drawn per sample.
        class_axis: axis of the outputs with the classes, for ``"sampled"``.
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
    likelihood = likelihood_of(criterion, labels, draws, class_axis, generator)
    twin, state = prepared(network)
    names = [name for name, parameter in network.named_parameters() if is_continuous(parameter)]
    sums = SquaredGradients(twin, state, names, likelihood, chunk_size)
    samples = 0
    with untouched_randomness():
        for inputs, observed in read(data, twin, state, batches, likelihood, batch):
            with torch.no_grad():
                outputs = run_at(twin, state, inputs)
            for chosen, weights in likelihood.weighted_labels(outputs, observed):
                with torch.enable_grad():
                    sums.update(inputs, chosen, weights)
            samples += len(outputs)
    if not samples:
        raise no_samples()
    return DiagonalFisher({name: value / samples for name, value in sums.sums.items()}, samples)


def likelihood_of(
    criterion: Criterion, labels: LabelKind, draws: int, class_axis: int, generator: torch.Generator | None
) -> Likelihood:
    """Make the likelihood, with its generator.

    Where no generator is given, it has one of its own.
    """
    return Likelihood(criterion, labels, draws, class_axis, generator or torch.Generator().manual_seed(0))


def prepared(network: nn.Module) -> tuple[nn.Module, State]:
    """Copy a network in eval mode, with its tensors.

    The tensors are detached. Tied ones come once.
    """
    check_supported(network)
    twin = evaluation_copy(network)
    for child in twin.modules():
        if isinstance(child, (nn.Embedding, nn.EmbeddingBag)):
            child.sparse = False  # vmap cannot run what gives sparse gradients
    tied = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    return twin, {name: value.detach().clone() for name, value in named_tensors(twin).items() if name in tied}


def is_continuous(tensor: Tensor) -> bool:
    """Tell whether one can differentiate in a tensor."""
    return tensor.is_floating_point() or tensor.is_complex()


def read(
    data: Iterable[Any],
    network: nn.Module,
    state: State,
    batches: int | None,
    likelihood: Likelihood,
    batch: BatchAdapter | None,
) -> Iterator[tuple[Any, Any]]:
    """Yield inputs and labels on the network's device.

    Samples of which no observed label counts are left out.
    """
    labelled = likelihood.labels == "observed"
    criterion = likelihood.criterion if labelled else None
    for found in islice(iter(data), batches):
        inputs, labels = read_batch(found, batch, network=network, labelled=labelled, criterion=criterion)
        inputs, labels = move_to((inputs, labels), device_of(state))
        if labelled:
            inputs, labels = with_counted_labels(inputs, labels, likelihood.criterion)
            if isinstance(labels, Tensor) and labels.ndim and not len(labels):
                continue
        yield inputs, labels


def no_samples() -> DataError:
    """Return the error that no sample was seen."""
    return DataError("Expected at least one sample to measure the curvature on but got none.")
