"""What goes into and comes out of linear layers, convolutions and norms, as rows of samples and positions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sinkhorn_rebasin._typing import BatchAdapter, StateLike
from sinkhorn_rebasin.carrying.norm_layers import channel_rows, normalized
from sinkhorn_rebasin.curvature.shared_layers import (
    SharedLayer,
    groups_of,
    input_rows,
    output_rows,
    shared_layers,
)
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.layers import first_argument
from sinkhorn_rebasin.networks.randomness import untouched_randomness

MOST_ROWS = 16384


@dataclass
class LayerRows:
    """Hold rows of one layer, in double precision.

    Attributes:
        channels: of the inputs, (rows, channels); of a convolution at single positions.
        multiplied: what the weight is multiplied with, (rows, inputs of the weight), a one for the bias last; of a
            norm its outputs without gain and shift.
        outputs: (rows, outputs), at the positions of ``multiplied``.
    """

    channels: Tensor
    multiplied: Tensor
    outputs: Tensor


def plain_layers(network: nn.Module) -> dict[str, SharedLayer]:
    """List the layers of one matrix each, by name; convolutions in groups are left out.

    >>> list(plain_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0', '2']
    """
    return {name: layer for name, layer in shared_layers(network).items() if groups_of(layer) == 1}


@torch.no_grad()
def layer_rows(
    network: nn.Module,
    state: StateLike,
    names: Sequence[str],
    batches: Sequence[Any],
    batch: BatchAdapter | None,
) -> dict[str, LayerRows]:
    """Run a network at a state and keep rows of some layers, in the order in which they run first.

    Rows are taken at even distances, the same in every network, at most 16,384 of each layer.

    Args:
        network: the architecture; a copy of it runs, in eval mode.
        state: its tensors.
        names: of plain layers and of norms.
        batches: of (inputs, labels) or of inputs alone.
        batch: a function from a batch to (inputs, labels).
    """
    running = evaluation_copy(network)
    most = max(1, MOST_ROWS // len(batches))
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    with ExitStack() as hooks:
        for name in names:
            layer = running.get_submodule(name)

            def record(layer: Any, arguments: Any, keywords: Any, output: Tensor, name: str = name) -> None:
                rows = _rows(layer, first_argument(arguments, keywords), output)
                first, second, third = (_evenly(each, most).double() for each in rows)
                parts.setdefault(name, []).append((first, second, third))

            hooks.callback(layer.register_forward_hook(record, with_kwargs=True).remove)
        device = device_of(state)
        for found in batches:
            inputs, _ = read_batch(found, batch, network=network, labelled=False)
            with untouched_randomness():
                run_at(running, state, move_to(inputs, device))
    return {
        name: LayerRows(*(torch.cat(rows) for rows in zip(*seen, strict=True)))
        for name, seen in parts.items()
    }


def check_rows(first: dict[str, LayerRows], second: dict[str, LayerRows]) -> None:
    """Raise ArchitectureError unless two networks ran a layer at as many positions; it is named."""
    for name in first.keys() & second.keys():
        if len(first[name].outputs) != len(second[name].outputs):
            raise ArchitectureError(
                f"Expected layer {name!r} to run at as many positions in both networks but got "
                f"{len(first[name].outputs)} and {len(second[name].outputs)}."
            )


def _rows(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(layer, (nn.Linear, _ConvNd)):
        return (
            channel_rows(layer, inputs),
            channel_rows(layer, normalized(layer, inputs)),
            channel_rows(layer, outputs),
        )
    return _channels(layer, inputs), input_rows(layer, inputs)[0], output_rows(layer, outputs)[0]


def _channels(layer: SharedLayer, inputs: Tensor) -> Tensor:
    """List the inputs' channels at every position."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])
    last = inputs.movedim(-1 - len(layer.kernel_size), -1)
    return last.reshape(-1, last.shape[-1])


def _evenly(rows: Tensor, most: int) -> Tensor:
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()]
