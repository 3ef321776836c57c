"""How much alike two networks are by what they predict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.metrics.similarity import LinearCKA
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import batches_in, move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy, inputs_like
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.structures import tensors_in
from sinkhorn_rebasin.networks.task_loss import logits_of


def output_cka(
    first: nn.Module,
    second: nn.Module,
    data: Iterable[Any],
    *,
    mixed: bool = True,
    generator: torch.Generator | None = None,
    batch: BatchAdapter | None = None,
) -> float:
    r"""Return the linear CKA of what two networks predict.

    .. math:: \mathrm{CKA}\bigl(\operatorname{softmax} f(\tilde x),\ \operatorname{softmax} g(\tilde x)\bigr), \qquad
        \tilde x_n = w_n x_n + (1 - w_n)\, x_{\sigma(n)}, \quad w_n \sim \mathcal U(0, 1)

    Between samples networks disagree where on samples, which both have learned, they do not. Moving a network within
    its orbit changes nothing: compare a target, or a merge after alignment, with the reference.

    Args:
        first, second: networks of the same classes, of any architectures; neither is changed. They run in eval mode.
        data: batches of (inputs, labels) or of inputs alone.
        mixed: mix the samples of a batch with each other; else the samples themselves.
        generator: draws pairs and shares; without it a fixed one of its own.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        Between 0 and 1.

    Raises:
        DataError: no batch, or inputs to mix that are no floats.
        LossError: a network returns no tensor and nothing with logits.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> round(output_cka(net, net, [torch.randn(16, 4)]), 4)
        1.0

    Source: Yang et al., "Taxonomizing local versus global structure in neural network loss landscapes" (2021).
    """
    networks = [evaluation_copy(network) for network in (first, second)]
    generator = generator or torch.Generator("cpu").manual_seed(0)
    metric, states = LinearCKA(), [tensors_of(network) for network in networks]
    with torch.no_grad(), untouched_randomness():
        for given in batches_in(data):
            inputs, _ = read_batch(given, batch, network=first, labelled=False)
            inputs = _mixed(inputs, generator) if mixed else inputs
            chances = [
                _chances(run_at(network, state, move_to(inputs, device_of(state)))).cpu()
                for network, state in zip(networks, states, strict=True)
            ]
            metric.update(*chances)
    if metric.samples == 0:
        raise DataError("Expected at least one batch to compare networks on but got none.")
    return float(metric.compute())


def _mixed(inputs: Any, generator: torch.Generator) -> Any:
    """Mix the samples of a batch with each other."""
    tensors = tensors_in(inputs)
    if not tensors or any(not t.is_floating_point() or len(t) != len(tensors[0]) for t in tensors):
        told = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in tensors)
        raise DataError(
            f"Expected inputs to mix that are floats, of as many samples each, but got {told or 'no tensor'}: pass "
            f"mixed=False."
        )
    count, place = len(tensors[0]), generator.device
    order = torch.randperm(count, generator=generator, device=place)
    drawn = torch.rand(count, generator=generator, device=place)

    def mixed(tensor: Tensor) -> Tensor:
        """Mix one tensor as all others are."""
        shares = drawn.to(tensor).view(-1, *[1] * (tensor.ndim - 1))
        return torch.lerp(tensor[order.to(tensor.device)], tensor, shares)

    return inputs_like(inputs, mixed)


def _chances(outputs: Any) -> Tensor:
    """Return probabilities, (samples, classes times places)."""
    logits = outputs if isinstance(outputs, Tensor) else logits_of(outputs)
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        raise LossError(f"Expected outputs (samples, classes, ...) but got {type(outputs).__name__}.")
    return logits.softmax(1).flatten(1)
