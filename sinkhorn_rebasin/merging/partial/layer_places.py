"""Layers whose weights can be fitted, in the order in which they run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.layers import first_argument, is_plain_affine


@dataclass(frozen=True)
class LayerPlace:
    """Describe a layer and its batch norm.

    The layer is linear or a convolution, and that norm alone takes its output.

    Attributes:
        path: of the layer.
        norm: path of the batch norm, or None.
        once: whether the layer runs once in a forward.
    """

    path: str
    norm: str | None
    once: bool = False

    @property
    def weight(self) -> str:
        """Name the layer's weight."""
        return f"{self.path}.weight" if self.path else "weight"

    @property
    def output(self) -> str:
        """Name the module whose output is fitted."""
        return self.path if self.norm is None else self.norm


def layer_places(networks: TwoNetworks, inputs: Any) -> list[LayerPlace]:
    """List the layers that are fitted.

    They come in the order of their first run.

    They are linear layers and convolutions over all channels, in one or two dimensions, with a weight of their own.
    """
    network = evaluation_copy(networks.reference)
    modules = dict(network.named_modules())
    layers = {path: module for path, module in modules.items() if _is_fitted(networks, path, module)}
    norms = {path: module for path, module in modules.items() if _is_affine_norm(module)}
    order: dict[str, Tensor] = {}
    calls: dict[str, int] = dict.fromkeys([*layers, *norms], 0)
    behind: dict[str, list[str]] = {path: [] for path in layers}

    def left(path: str, output: Tensor) -> None:
        order.setdefault(path, output)
        calls[path] += 1

    def reached(path: str, value: Any) -> None:
        calls[path] += 1
        for layer, output in order.items():
            if output is value:
                behind[layer].append(path)

    with ExitStack() as hooks, torch.no_grad():
        for path, module in layers.items():
            handle = module.register_forward_hook(lambda _, __, output, path=path: left(path, output))
            hooks.callback(handle.remove)
        for path, module in norms.items():
            handle = module.register_forward_pre_hook(
                lambda _, given, named, path=path: reached(path, first_argument(given, named)),
                with_kwargs=True,
            )
            hooks.callback(handle.remove)
        run_at(network, {}, inputs)
    places = []
    for path in order:
        once = len(behind[path]) == 1 and calls[path] == calls[behind[path][0]] == 1
        places.append(LayerPlace(path, behind[path][0] if once else None, calls[path] == 1))
    return places


def layer_inputs(layer: Any, values: Tensor) -> Tensor:
    """Return a layer's inputs, (samples, features).

    The weight is multiplied by them.

    >>> layer_inputs(nn.Conv2d(2, 1, 3, padding=1), torch.ones(5, 2, 4, 4)).shape
    torch.Size([80, 18])
    """
    if isinstance(layer, nn.Linear):
        return values.reshape(-1, values.shape[-1])
    flat = isinstance(layer, nn.Conv1d)
    sizes = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
    kernel, dilation, padding, stride = [
        (0 if at == 2 else 1, *s) if flat else s for at, s in enumerate(sizes)
    ]
    patches = F.unfold(values.unsqueeze(2) if flat else values, kernel, dilation, padding, stride)
    return patches.movedim(1, -1).reshape(-1, patches.shape[1])


def layer_outputs(layer: nn.Module, values: Tensor) -> Tensor:
    """Return a layer's outputs, (samples, outputs)."""
    last = values if isinstance(layer, nn.Linear) else values.movedim(1, -1)
    return last.reshape(-1, last.shape[-1])


def channel_axis(layer: nn.Module, values: Tensor) -> int:
    """Return the axis of a layer's units.

    It is that of what the layer takes and returns.
    """
    return values.dim() - 1 if isinstance(layer, nn.Linear) else 1


def _is_fitted(networks: TwoNetworks, path: str, module: Any) -> bool:
    if not (is_plain_affine(module) and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)):
        return False
    name = f"{path}.weight".lstrip(".")
    tied = {alias for names in networks.spec.tied for alias in names}
    is_own = name in networks.spec.shapes and name not in tied and "weight" in module._parameters
    if isinstance(module, nn.Linear):
        return is_own
    return (
        is_own
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _is_affine_norm(module: nn.Module) -> bool:
    return (
        isinstance(module, _BatchNorm)
        and module.affine
        and module.track_running_stats
        and module.running_mean is not None
    )
