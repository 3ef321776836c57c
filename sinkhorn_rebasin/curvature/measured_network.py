"""A network at which the curvature is measured, and the samples that it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, State
from sinkhorn_rebasin.curvature.likelihood import Likelihood
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.counting import with_counted_labels
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.support import check_supported


class MeasuredNetwork:
    """Copy a network and show the copy samples.

    The copy is in eval mode.

    Args:
        network: the network; it is not changed.
        likelihood: what the loss of a sample is.

    Attributes:
        network: the copy.
        state: its tensors, detached; tied ones come once.
        names: parameters that one can differentiate in.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood) -> None:
        check_supported(network)
        self.likelihood = likelihood
        self.network = evaluation_copy(network)
        for child in self.network.modules():
            if isinstance(child, (nn.Embedding, nn.EmbeddingBag)):
                child.sparse = False  # vmap cannot run what gives sparse gradients
        once = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        tensors = named_tensors(self.network)
        self.state: State = {name: value.detach().clone() for name, value in tensors.items() if name in once}
        self.names = [name for name, parameter in network.named_parameters() if _is_continuous(parameter)]

    def over_samples(
        self,
        take: Callable[[Any, Any], int],
        data: Iterable[Any],
        batches: int | None,
        batch: BatchAdapter | None,
    ) -> int:
        """Hand every batch to a function, and count samples.

        Random states are left as they were.

        Args:
            take: from inputs and observed labels to the number of samples.
            data: batches of (inputs, labels), or of inputs alone.
            batches: read at most this many batches; None reads all.
            batch: a function from a batch to (inputs, labels), for data that yield something else.

        Raises:
            DataError: there is no sample.
        """
        samples = 0
        with untouched_randomness():
            for inputs, observed in self._read(data, batches, batch):
                samples += take(inputs, observed)
        if not samples:
            raise DataError("Expected at least one sample to measure the curvature on but got none.")
        return samples

    def _read(
        self, data: Iterable[Any], batches: int | None, batch: BatchAdapter | None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield inputs and labels on the network's device.

        Samples of which no observed label counts are left out.
        """
        labelled = self.likelihood.labels == "observed"
        criterion = self.likelihood.criterion if labelled else None
        for found in islice(batches_in(data), batches):
            inputs, labels = read_batch(
                found, batch, network=self.network, labelled=labelled, criterion=criterion
            )
            inputs, labels = move_to((inputs, labels), device_of(self.state))
            if labelled:
                inputs, labels = with_counted_labels(inputs, labels, self.likelihood.criterion)
                if isinstance(labels, Tensor) and labels.ndim and not len(labels):
                    continue
            yield inputs, labels


def _is_continuous(tensor: Tensor) -> bool:
    """Tell whether one can differentiate in a tensor."""
    return tensor.is_floating_point() or tensor.is_complex()
