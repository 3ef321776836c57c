"""Copies of networks and inputs, so that running them leaves no trace in the caller's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.outputs import tensors_in

Module = TypeVar("Module", bound=nn.Module)

_CONTENTS = ("_parameters", "_buffers", "_modules")


def standalone_copy(module: Module, *, share_parameters: bool = False) -> Module:
    """A copy of a network that shares nothing with it, or its parameters alone.

    Plain attributes are copied too: caches, counters, tensors that belong to a graph (detached). Ties stay ties.

    Raises:
        ArchitectureError: when something in the module cannot be copied.

    >>> layer = nn.Linear(2, 3)
    >>> twin = standalone_copy(layer)
    >>> twin.weight is layer.weight, torch.equal(twin.weight, layer.weight)
    (False, True)
    """
    shared = list(module.parameters()) if share_parameters else []
    memo: dict[int, Tensor] = {id(tensor): tensor for tensor in shared}
    for child in module.modules():
        plain = {name: value for name, value in vars(child).items() if name not in _CONTENTS}
        for tensor in [*tensors_in(plain), *child._buffers.values()]:
            if tensor is not None and (tensor.grad_fn is not None or tensor.layout != torch.strided):
                # deepcopy refuses tensors with a history and some sparse ones.
                memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ArchitectureError(
            f"Expected a network that copy.deepcopy can copy, so that it stays untouched, but "
            f"{type(module).__name__} raised {type(error).__name__}: {error}. Give what cannot be copied a "
            f"__deepcopy__, or keep it outside of the module."
        ) from error


def inputs_like(inputs: ExampleInputs, made: Callable[[Tensor], Tensor] = torch.clone) -> ExampleInputs:
    """Inputs of the same structure with every tensor, at any depth, replaced by what is made of it.

    >>> inputs_like({"x": [torch.ones(2)], "flag": True}, torch.zeros_like)
    {'x': [tensor([0., 0.])], 'flag': True}
    """
    with torch.no_grad():
        memo = {id(tensor): made(tensor.detach()) for tensor in tensors_in(inputs)}
    return copy.deepcopy(inputs, memo)
