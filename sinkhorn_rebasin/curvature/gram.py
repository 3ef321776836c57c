"""Gram matrices: second moments of what goes into linear and convolution layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, State
from sinkhorn_rebasin.curvature.factors import layers_run
from sinkhorn_rebasin.curvature.likelihood import likelihood_of
from sinkhorn_rebasin.curvature.measured_network import MeasuredNetwork
from sinkhorn_rebasin.curvature.shared_layers import SharedLayer, input_rows
from sinkhorn_rebasin.errors import listed
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.layers import first_argument
from sinkhorn_rebasin.networks.structures import tensors_in
from sinkhorn_rebasin.networks.task_loss import task_loss

TakeRows: TypeAlias = Callable[[str, Tensor], None]
"""From the name of a layer and its rows of inputs, (groups, positions, inputs)."""


@dataclass(frozen=True, repr=False)
class LayerGram:
    r"""Hold the Gram matrix of one layer's inputs.

    Attributes:
        weight, bias: names of its parameters; None without a bias.
        weight_shape: shape of the weight, (outputs, inputs, ...).
        matrix: :math:`\mathbb E[\bar x \bar x^\top]`, (groups, inputs, inputs), a one for the bias last; of a
            convolution the inputs of one position, channel by channel.
    """

    weight: str
    bias: str | None
    weight_shape: tuple[int, ...]
    matrix: Tensor

    def __repr__(self) -> str:
        return f"LayerGram({self.weight!r}, {tuple(self.matrix.shape)}, trace {self.trace():.5g})"

    def trace(self) -> float:
        r"""Compute :math:`\operatorname{tr} G`, summed over convolution groups."""
        return float(self.matrix.diagonal(dim1=-2, dim2=-1).sum())


@dataclass(frozen=True, repr=False)
class GramMatrices:
    r"""Hold the Gram matrices of a network's layers.

    It is all of its data that an owner hands on: second moments, and no sample.

    Attributes:
        layers: of each linear and convolution layer, by name.
        samples: how many samples they are the mean over.
        left_out: layers that have none, with the reason.
    """

    layers: Mapping[str, LayerGram]
    samples: int
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        missing = f"; without {listed(self.left_out)}" if self.left_out else ""
        return (
            f"GramMatrices({len(self.layers)} layers: {listed(self.layers)}; mean over {self.samples} samples"
            f"{missing})"
        )


@torch.inference_mode(False)
def gram_matrices(
    network: nn.Module,
    data: Iterable[Any],
    *,
    batches: int | None = None,
    batch: BatchAdapter | None = None,
) -> GramMatrices:
    r"""Measure the Gram matrices of a network's layers.

    .. math:: G_l = \frac1{N T} \sum_{n, t} \bar x_{n, t}\, \bar x_{n, t}^\top, \qquad \bar x = [x, 1]

    with the inputs x of layer l at the T positions of a sequence or an image; a convolution is a linear layer on its
    unfolded patches. The network runs in eval mode; labels are not looked at.

    Args:
        network: it is not changed.
        data: batches of inputs, or of (inputs, labels).
        batches: read at most this many batches; None reads all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        Matrices in float64 on the CPU. :meth:`Alignment.carry_grams` carries them to another network.

    Raises:
        DataError: there is no sample.

    Example:
        >>> layer, x = nn.Linear(2, 3, bias=False), torch.tensor([[1.0, 3.0], [1.0, 1.0]])
        >>> gram_matrices(layer, [x]).layers[""].matrix.tolist()
        [[[1.0, 2.0], [2.0, 5.0]]]

    Source: Jin et al., "Dataless knowledge fusion by merging weights of language models" (2023).
    """
    measured = MeasuredNetwork(network, likelihood_of(task_loss, "sampled", 1, None, None))
    sums: dict[str, Tensor] = {}
    positions: dict[str, int] = {}
    layers: dict[str, SharedLayer] = {}

    def add(name: str, rows: Tensor) -> None:
        """Add one layer's products."""
        sums[name] = sums.get(name, 0) + products(rows, rows)
        positions[name] = positions.get(name, 0) + rows.shape[1]

    def take(inputs: Any, _: Any) -> int:
        """Take in a batch; return its number of samples."""
        if not layers:
            layers.update(layers_run(measured.network, measured.state, inputs))
        with_rows(measured.network, measured.state, layers, inputs, add)
        return next((len(tensor) for tensor in tensors_in(inputs) if tensor.ndim), 1)

    samples = measured.over_samples(take, data, batches, batch)
    return GramMatrices(
        {
            name: _layer_gram(name, layer, sums[name] / max(1, positions[name]))
            for name, layer in layers.items()
        },
        samples,
    )


@torch.no_grad()
def with_rows(
    network: nn.Module, state: State, layers: Mapping[str, SharedLayer], inputs: Any, take: TakeRows
) -> Any:
    """Hand on what goes into layers.

    The network is run for it.

    Args:
        network: the architecture in eval mode, a copy: hooks come and go on it.
        state: all of its tensors.
        layers: of this network, by name.
        inputs: what it takes.
        take: is given a layer's name and its rows, as often as the layer runs.

    Returns:
        What the network returns.
    """

    def hook(name: str) -> Any:
        """Make the hook of one layer."""

        def gather(layer: SharedLayer, arguments: Any, keywords: Any) -> None:
            """Hand on the rows."""
            take(name, input_rows(layer, first_argument(arguments, keywords)).detach())

        return gather

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(hook(name), with_kwargs=True).remove)
        return run_at(network, state, inputs)


def products(first: Tensor, second: Tensor) -> Tensor:
    """Multiply the rows of every group.

    (groups, positions, n) and (groups, positions, m) give (groups, n, m).

    >>> products(torch.ones(1, 2, 1), torch.ones(1, 2, 3)).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    return (first.to(dtype).mT @ second.to(dtype)).to("cpu", torch.float64)


def _layer_gram(name: str, layer: SharedLayer, matrix: Tensor) -> LayerGram:
    prefix = f"{name}." if name else ""
    bias = None if layer.bias is None else f"{prefix}bias"
    return LayerGram(f"{prefix}weight", bias, tuple(layer.weight.shape), matrix)
