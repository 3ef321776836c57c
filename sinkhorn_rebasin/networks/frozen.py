"""Networks whose weights are buffers: they follow their owner but no optimiser sees them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy in which every parameter has become a buffer of the same name.

    As part of another module it moves, is saved and loaded with it, while ``parameters()`` does not list it.
    Tied parameters stay one tensor.

    >>> frozen = frozen_copy(nn.Linear(3, 2))
    >>> list(frozen.parameters()), sorted(frozen.state_dict())
    ([], ['bias', 'weight'])
    """
    frozen = copy.deepcopy(module)
    values: dict[int, Tensor] = {}
    for child in frozen.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is None:
                continue
            values.setdefault(id(parameter), parameter.detach().clone())
            del child._parameters[name]
            child.register_buffer(name, values[id(parameter)])
    return frozen


def thawed_copy(frozen: nn.Module, state: StateLike, parameters: dict[str, bool]) -> nn.Module:
    """A plain network: a frozen copy's structure with these tensors, its parameters made parameters again.

    Args:
        frozen: what :func:`frozen_copy` made.
        state: tensor name to tensor.
        parameters: which names are parameters, and whether they require a gradient.

    >>> layer = nn.Linear(3, 2)
    >>> plain = thawed_copy(frozen_copy(layer), layer.state_dict(), {"weight": True, "bias": False})
    >>> [name for name, p in plain.named_parameters() if p.requires_grad]
    ['weight']
    """
    plain = copy.deepcopy(frozen)
    made: dict[int, nn.Parameter] = {}
    with torch.no_grad():
        for prefix, child in plain.named_modules():
            for name, buffer in list(child._buffers.items()):
                if buffer is None:
                    continue
                path = f"{prefix}.{name}" if prefix else name
                value = state.get(path, buffer).detach().clone()
                if path not in parameters:
                    child._buffers[name] = value
                    continue
                if id(buffer) not in made:
                    made[id(buffer)] = nn.Parameter(value, requires_grad=parameters[path])
                del child._buffers[name]
                child.register_parameter(name, made[id(buffer)])
    return plain


def parameter_flags(module: nn.Module) -> dict[str, bool]:
    """Which names are parameters, and whether each requires a gradient."""
    return {name: p.requires_grad for name, p in module.named_parameters(remove_duplicate=False)}


def named_tensors(module: nn.Module) -> State:
    """Parameters and buffers by name, tied ones under each of their names, not detached."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
