"""Gains of norms that become matrices of their own, on request."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.copying import Module, evaluation_copy, inputs_like, standalone_copy
from sinkhorn_rebasin.networks.double_precision import narrow_tolerance
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.randomness import untouched_randomness


def expand(model: Module, gains: Sequence[str], example_inputs: ExampleInputs) -> Module:
    r"""Copy a network and give norms a matrix each.

    The norm keeps a gain of one, and what it multiplied by becomes a linear layer behind it,

    .. math:: \gamma \odot z + \beta \;\to\; \operatorname{diag}(\gamma)\, z + \beta

    The copy is of the same class and computes the same. It has n² - n parameters more for each norm of n units, and
    symmetries of its own: discover them anew. A stream that is read through a tied weight turns then, since a matrix
    turns on both of its sides where a gain cannot.

    Args:
        model: the network; it is not changed.
        gains: names of the gains, as those a :class:`ContinuousSpec` calls ``unfoldable``.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, to prove it on.

    Raises:
        ArchitectureError: a name that is no gain of a layer of its own, or a function that would change.

    Example:
        >>> net, x = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2)), torch.randn(4, 3)
        >>> twin = expand(net, ["0.weight"], x)
        >>> twin[0][0].weight.tolist(), twin[0][1].weight.shape
        ([1.0, 1.0, 1.0], torch.Size([3, 3]))
        >>> torch.allclose(twin(x), net(x), atol=1e-6)
        True
    """
    twin = standalone_copy(model)
    for name in gains:
        _expand_one(twin, name)
    with torch.inference_mode(False), torch.no_grad(), untouched_randomness(forked=True):
        before, after = (
            run_at(network, {}, inputs_like(example_inputs))
            for network in (evaluation_copy(model), evaluation_copy(twin))
        )
    change = largest_change(before, after)
    if not change <= narrow_tolerance(model.parameters()):
        raise ArchitectureError(
            f"Expected {', '.join(gains)} to multiply what {type(model).__name__} normalizes, and nothing else, but "
            f"with a matrix in its place the output changes by {change:.1e}."
        )
    return twin


def _expand_one(model: nn.Module, name: str) -> None:
    """Replace the layer that holds a gain by that layer and a linear one, wherever the layer stands."""
    path, _, attribute = name.rpartition(".")
    layer = dict(model.named_modules(remove_duplicate=False)).get(path)
    gain = None if layer is None else layer._parameters.get(attribute)
    if (
        not path
        or layer is None
        or gain is None
        or gain.dim() != 1
        or next(layer.children(), None) is not None
    ):
        raise ArchitectureError(
            f"Expected the name of a gain that a layer of its own holds, such as 'norm.weight', but got {name!r}."
        )
    if any(name in names for names in _tied_elsewhere(model)):
        raise ArchitectureError(
            f"Expected a gain that is no other layer's but {name!r} is tied; untie(model) first."
        )
    expanded = nn.Sequential(layer, _linear(layer, attribute, gain)).train(layer.training)
    for parent in list(model.modules()):
        for child, module in parent._modules.items():
            if module is layer and parent is not expanded:
                parent._modules[child] = expanded


def _linear(layer: nn.Module, attribute: str, gain: Tensor) -> nn.Linear:
    """Take a layer's gain and shift out of it, as a linear layer; the layer is left with one and zero."""
    shifts = [
        parameter
        for key, parameter in layer._parameters.items()
        if key != attribute and parameter is not None and parameter.shape == gain.shape
    ]
    if len(shifts) > 1:
        raise ArchitectureError(
            f"Expected one shift beside the gain of {type(layer).__name__} but it holds {len(shifts)}."
        )
    size = gain.numel()
    linear = nn.utils.skip_init(
        nn.Linear, size, size, bias=bool(shifts), device=gain.device, dtype=gain.dtype
    )
    with torch.no_grad():
        linear.weight.copy_(gain.diag())
        gain.fill_(1.0)
        for shift in shifts:
            linear.bias.copy_(shift)
            shift.zero_()
    return linear.requires_grad_(gain.requires_grad)


def _tied_elsewhere(model: nn.Module) -> list[list[str]]:
    """Groups of names of one tensor that several layers hold."""
    layers = dict(model.named_modules(remove_duplicate=False))
    return [
        names
        for names in tied_names(model)
        if len({id(layers[name.rpartition(".")[0]]) for name in names}) > 1
    ]
