"""At how many places of its inputs a layer's weight is used."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import run_at


def layer_positions(networks: TwoNetworks, inputs: Any) -> dict[str, int]:
    """Count the places where weights are multiplied.

    They are counted in one run, for linear and convolution layers.
    """
    network = evaluation_copy(networks.reference)
    counts: Counter[str] = Counter()

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        axis = 1 if isinstance(layer, _ConvNd) else output.dim() - 1
        counts[name] += output.numel() // max(output.shape[axis], 1)

    with ExitStack() as hooks, torch.no_grad():
        for path, module in network.named_modules():
            if isinstance(module, nn.Linear | _ConvNd):
                name = f"{path}.weight".lstrip(".")
                handle = module.register_forward_hook(
                    lambda layer, _, output, name=name: count(name, layer, output)
                )
                hooks.callback(handle.remove)
        run_at(network, {}, inputs)
    return dict(counts)
