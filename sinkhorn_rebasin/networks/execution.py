"""Running an architecture at weights that are not its own, without changing anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.arguments import arguments_of, call_hint, takes
from sinkhorn_rebasin.networks.frozen import former_parameters, own_buffers
from sinkhorn_rebasin.networks.lending import run_with
from sinkhorn_rebasin.networks.structures import replaced


def run_at(module: nn.Module, state: StateLike, inputs: Any) -> Any:
    """Run a module with other parameters and buffers.

    Its forward has them in place of its own.

    Gradients flow to every tensor of the state except the running statistics of norm layers, which PyTorch
    does not differentiate. Neither module, state nor inputs are changed: a forward that writes to buffers, such as
    running statistics or a count of its calls, writes to copies of those of the state, and an embedding with a
    ``max_norm`` renormalises a copy of its weight. Tied names count once, the first that the state has.

    Args:
        module: the architecture; its training mode is respected.
        state: parameters and buffers by name; what it lacks is taken from the module.
        inputs: a tensor, a tuple (or list) of positional or a dict of keyword arguments, or any object as the one
            argument; its tensors are copied, wherever they lie in it.

    Raises:
        ArchitectureError: when the network has not these arguments; it says how to write them.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> run_at(layer, {"weight": torch.ones(1, 2)}, torch.tensor([[3.0, 4.0]])).item() == 7.0
        True
    """
    weights = dict(state)
    tied = tied_names(module)
    for names in tied:
        for duplicate in [name for name in names if name in weights][1:]:
            del weights[duplicate]
    layers = list(module.named_modules())
    for name in own_buffers(module):
        if name in weights:
            weights[name] = weights[name].clone()
    for name in _running_statistics(layers):
        if name in weights:
            weights[name] = weights[name].detach()
    for name, weight in _renormalized(layers):
        aliases = next((names for names in tied if name in names), (name,))
        given = next((alias for alias in aliases if alias in weights), name)
        weights[given] = weights.get(given, weight).clone()
    has_group_norm = any(isinstance(layer, nn.GroupNorm) for _, layer in layers)
    arguments, keywords = arguments_of(module, _fresh(inputs, has_group_norm))
    try:
        with former_parameters(module):
            return run_with(module, weights, arguments, keywords)
    except TypeError as error:
        if takes(module, arguments, keywords):
            raise
        raise ArchitectureError(
            f"Expected inputs that {type(module).__name__} takes but it raised {type(error).__name__}: {error}."
            + call_hint(module, inputs)
        ) from error


def _fresh(inputs: Any, has_group_norm: bool) -> Any:
    """Copy the inputs for a run.

    The network may write to them. They need a gradient where it has a group norm.

    With channels last in memory, the gradient of group norm on a processor ends the process (torch 2.13) where its
    weight needs one and what it normalises does not.
    """
    followed = has_group_norm and torch.is_grad_enabled()

    def copied(tensor: Tensor) -> Tensor:
        """Copy a tensor of the inputs."""
        if followed and tensor.is_floating_point() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        return tensor.clone()  # no leaf of the graph, which could not be written to

    return replaced(inputs, copied)


def device_of(state: StateLike) -> torch.device:
    """Return the device of a state.

    It is that of the first tensor, the CPU where there is none.

    Example:
        >>> device_of({"weight": torch.zeros(1, device="meta")}).type
        'meta'
    """
    return next((tensor.device for tensor in state.values()), torch.device("cpu"))


def _running_statistics(layers: Iterable[tuple[str, nn.Module]]) -> list[str]:
    """Name the tensors that norm layers write to.

    Their weight and bias may be buffers too, but carry gradients.
    """
    keys = ("running_mean", "running_var", "num_batches_tracked")
    return [
        f"{name}.{key}" if name else key
        for name, layer in layers
        if isinstance(layer, _NormBase)
        for key in keys
        if key in layer._buffers
    ]


def _renormalized(layers: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, Tensor]]:
    """Name the weights that the forward writes to.

    They come by name.
    """
    return [
        (f"{name}.weight" if name else "weight", layer.weight)
        for name, layer in layers
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and layer.max_norm is not None
    ]


@contextmanager
def batch_statistics(network: nn.Module, on: bool, folded: Collection[str] = ()) -> Iterator[None]:
    """Switch batch norm to batch statistics, or back.

    All else of the network is in eval mode, and so is batch norm that was folded into the layer before it. Other
    batch norm is in training mode when ``on``.

    Raises:
        DataError: a batch has a single value per channel.
    """
    modes = [(name, module, module.training) for name, module in network.named_modules()]
    for name, module, _ in modes:
        module.training = on and isinstance(module, _BatchNorm) and name not in folded
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            f"Expected at least two values per channel where batch norm runs on the batch but got fewer: use larger "
            f"batches or drop the last one. PyTorch says: {error}"
        ) from error
    finally:
        for _, module, training in modes:
            module.training = training
            if isinstance(module, nn.RNNBase):
                # Recurrent layers remember the weights of their last run: with them, its whole graph.
                module._init_flat_weights()
