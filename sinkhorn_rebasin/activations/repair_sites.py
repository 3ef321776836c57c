"""Where in a network statistics are put right, in which order, and what the activations there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer, affine_layers
from sinkhorn_rebasin.activations.batch_norm import has_statistics
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.batches import move_to
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.layers import first_argument, is_folded
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec

Stages: TypeAlias = Mapping[nn.Module, AffineLayer | str]
"""Layer of a network to what is corrected there: an affine layer, or a batch norm by its name."""


@torch.inference_mode(False)  # whose tensors have no versions
@torch.no_grad()
def stages_of(
    network: nn.Module, spec: PermutationSpec, state: StateLike, inputs: Any
) -> tuple[Stages, list[str]]:
    """List what is corrected in the order of runs.

    Returns that, and the names of layers that did not run. Layers whose output a batch norm takes as it is are in
    neither.
    """
    layers = affine_layers(network, spec)
    norms = {name: layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)}
    # Looked at before the run, in which a copy that keeps its weights must not read the network's own.
    names: dict[nn.Module, str] = {layer: name for name, layer in norms.items() if not is_folded(layer)}
    measured = {layer for layer in names if has_statistics(layer)}
    order: dict[nn.Module, AffineLayer | str] = {}
    ran: set[nn.Module] = set()
    # Kept alive, so that identity means the same tensor; with versions, for a function in place gives it too.
    outputs: list[tuple[Tensor, int, nn.Module]] = []

    # One function for each layer: in copies of a network that keeps its weights, a hook knows its layer by this.
    def after(layer: nn.Module) -> Callable[..., None]:
        """Make the hook of an affine layer."""

        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            """Note that a layer ran."""
            ran.add(layer)
            order.setdefault(layer, layers[layer])
            outputs.append((output, output._version, layer))

        return hook

    def before(norm: nn.Module) -> Callable[..., None]:
        """Make the hook of a norm."""

        def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            """Note a norm in place of the layer before."""
            given = first_argument(arguments, keywords)
            for output, version, layer in outputs:
                if given is output and output._version == version:
                    order.pop(layer, None)
            if norm in measured:
                order.setdefault(norm, names[norm])

        return hook

    handles = [layer.register_forward_hook(after(layer)) for layer in layers]
    handles += [norm.register_forward_pre_hook(before(norm), with_kwargs=True) for norm in names]
    run(network, state, [inputs])
    for handle in handles:
        handle.remove()
    return order, [stage.name for layer, stage in layers.items() if layer not in ran]


@torch.no_grad()
def measured(
    network: nn.Module, stages: Stages, state: StateLike, inputs: Sequence[Any]
) -> dict[str, Moments]:
    """Measure moments at affine layers and batch norms.

    They are those of the outputs of affine layers and of the inputs of batch norms, by name. Some may be empty.
    Outputs are those of the weights, before any hook that a layer has of its own.
    """
    moments: dict[str, Moments] = {}
    handles = []
    for layer, stage in stages.items():
        if isinstance(stage, AffineLayer):
            gathered = moments[stage.name] = Moments()
            # Counted from the end, where a convolution has as many axes of positions as its weight.
            axis = 1 - state[stage.weight].ndim
            handles.append(layer.register_forward_hook(_output_hook(gathered, axis), prepend=True))
        else:
            gathered = moments[stage] = Moments()
            handles.append(layer.register_forward_pre_hook(_input_hook(gathered), with_kwargs=True))
    run(network, state, inputs)
    for handle in handles:
        handle.remove()
    check_finite(moments)
    return moments


def _output_hook(moments: Moments, axis: int) -> Callable[..., None]:
    return lambda _, __, output: moments.update(output, axis)


def _input_hook(moments: Moments) -> Callable[..., None]:
    return lambda _, arguments, keywords: moments.update(first_argument(arguments, keywords), 1)


def check_finite(moments: Mapping[str, Moments]) -> None:
    """Raise where a layer took infinite values or NaN.

    Raises:
        DataError: it did.
    """
    for name, found in moments.items():
        if not bool(torch.isfinite(found.mean + found.squares).all()):
            raise DataError(f"Expected finite activations at layer {name!r} but some are infinite or NaN.")


def run(network: nn.Module, state: StateLike, inputs: Sequence[Any]) -> None:
    """Run every batch for what hooks see.

    Random states are left as they were.
    """
    with untouched_randomness():
        for batch in inputs:
            run_at(network, state, move_to(batch, device_of(state)))
