"""Second moments of what goes into layers and of the gradients at what comes out, gathered batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.curvature.shared_layers import (
    SharedLayer,
    groups_of,
    input_rows,
    output_rows,
    shared_layers,
)
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.handover import check_not_reentrant, gradients_of
from sinkhorn_rebasin.networks.layers import first_argument
from sinkhorn_rebasin.networks.observed_run import TensorReads


@torch.no_grad()
def layers_run(network: nn.Module, state: State, inputs: Any) -> dict[str, SharedLayer]:
    """Find the layers that run and own their weight.

    They are linear and convolution layers that run as modules on these inputs, and whose weight nothing else reads.
    """
    runs: Counter[nn.Module] = Counter()
    layers = shared_layers(network)
    readers = TensorReads(state)
    with ExitStack() as hooks:
        for layer in layers.values():
            hooks.callback(layer.register_forward_hook(lambda layer, _, __: runs.update([layer])).remove)
        with readers:
            run_at(network, state, inputs)
    return {
        name: layer
        for name, layer in layers.items()
        if layer in runs and readers.reads(f"{name}.weight" if name else "weight") <= runs[layer]
    }


class FactorSums:
    r"""Sum the Kronecker factors of some layers.

    These are :math:`\bar a \bar a^\top` and :math:`g g^\top`, added up over the positions.

    Args:
        network: the architecture in eval mode, a copy: hooks come and go on it.
        state: all of its tensors.
        layers: the layers, by name.

    Attributes:
        parameters: names of the weights and biases of the layers.
        inputs, outputs: the sums, (groups, inputs, inputs) and (groups, outputs, outputs), per layer.
        positions: per layer, how many positions the sum of the inputs is over.
    """

    def __init__(self, network: nn.Module, state: State, layers: Mapping[str, SharedLayer]) -> None:
        self.network, self.layers = network, layers
        own = {
            f"{name}.{key}" if name else key: layer
            for name, layer in layers.items()
            for key in layer._parameters
        }
        self.parameters = frozenset(own)
        # The graph starts at the parameters, whether or not the network's own ask for gradients.
        self.state = {name: _moving(value) if name in own else value for name, value in state.items()}
        self.positions = dict.fromkeys(layers, 0)
        self.inputs = {name: _zeros(layer, 1) for name, layer in layers.items()}
        self.outputs = {name: _zeros(layer, 0) for name, layer in layers.items()}
        self._seen: list[tuple[str, Tensor]] = []
        self._runs = False

    def forward(self, inputs: Any) -> Any:
        """Run the network and take in layers' inputs.

        The output has a graph back to what each layer gives.
        """
        self._seen = []
        with ExitStack() as hooks:
            # Layers may run again in the backward pass, where they are not counted.
            self._runs = True
            hooks.callback(setattr, self, "_runs", False)
            for name, layer in self.layers.items():
                # In front of the layer's own hooks: a factor is of what the weight gives, whatever they make of it.
                handle = layer.register_forward_hook(self._hook(name), prepend=True, with_kwargs=True)
                hooks.callback(handle.remove)
            return run_at(self.network, self.state, inputs)

    def backward(self, loss: Tensor) -> None:
        """Take in the gradients of a loss.

        The loss must come of the last output. Another loss of that output may follow.
        """
        check_not_reentrant(loss)
        if not loss.requires_grad or not self._seen:
            return
        outputs = [output for _, output in self._seen]
        found = gradients_of(loss, outputs, retain_graph=True)
        for (name, _), gradient in zip(self._seen, found, strict=True):
            if gradient is not None:
                rows = output_rows(self.layers[name], gradient).to(self.outputs[name].dtype)
                self.outputs[name] += rows.mT @ rows

    def _hook(self, name: str) -> Any:
        @torch.no_grad()
        def gather(layer: SharedLayer, arguments: Any, keywords: Any, output: Tensor) -> None:
            """Add one batch's input products of a layer."""
            rows = input_rows(layer, first_argument(arguments, keywords))
            rows = rows.detach().to(self.inputs[name].dtype)
            self.inputs[name] += rows.mT @ rows
            self.positions[name] += rows.shape[1]

        def hook(layer: SharedLayer, arguments: Any, keywords: Any, output: Tensor) -> Tensor:
            """Record what passes through a layer."""
            if self._runs:
                gather(layer, arguments, keywords, output)
                if output.requires_grad:
                    self._seen.append((name, output))
            # A later operation may write into the output in place: it gets another tensor.
            return output.clone()

        return hook


def _moving(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _zeros(layer: SharedLayer, axis: int) -> Tensor:
    """Make room for one factor.

    It is that of the outputs (axis 0), or of the inputs (axis 1) with the bias.
    """
    groups, weight = groups_of(layer), layer.weight
    size = weight.shape[0] // groups if axis == 0 else weight[0].numel() + (layer.bias is not None)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros(groups, size, size, dtype=dtype, device=weight.device)
