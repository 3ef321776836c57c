"""Copies of networks and inputs, so that running them leaves no trace in the caller's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.module_shells import fill_in
from sinkhorn_rebasin.networks.originals import note_original
from sinkhorn_rebasin.networks.reachable import reachable_tensors
from sinkhorn_rebasin.networks.redirection import redirect
from sinkhorn_rebasin.networks.shared_memory import aliases, overlapping, rebuilt
from sinkhorn_rebasin.networks.structures import replaced
from sinkhorn_rebasin.networks.support import check_module

Module = TypeVar("Module", bound=nn.Module)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Leave inference mode, so that what is made can be trained; gradients are followed as they were.

    >>> with torch.inference_mode(), plain_tensors():
    ...     torch.ones(1).is_inference(), torch.is_grad_enabled()
    (False, False)
    """
    graded = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(graded):
        yield


def standalone_copy(module: Module, *, share_parameters: bool = False) -> Module:
    """Copy a network that shares nothing with it.

    With ``share_parameters`` it shares the memory of parameters, and nothing else.

    Plain attributes are copied too: caches, counters, tensors that belong to a graph (detached). Ties stay ties, and
    views of weights stay views. Functions that reach into the network (closures, hooks, defaults, partial functions,
    weak references) reach into the copy.

    Raises:
        ArchitectureError: when it is no module, or something in it cannot be copied.

    >>> layer = nn.Linear(2, 3)
    >>> twin = standalone_copy(layer)
    >>> twin.weight is layer.weight, torch.equal(twin.weight, layer.weight)
    (False, True)
    """
    check_module(module)
    if share_parameters:
        tensors = reachable_tensors(module)
        return _copied(module, aliases(module, tensors), tensors)
    twin = copied(module, {})
    note_original(twin, module)
    return twin


def copied(module: Module, replaced: Mapping[int, Any]) -> Module:
    """Copy a network with some objects replaced.

    The objects are given by their ids.

    Raises:
        ArchitectureError: when something in the module cannot be copied.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> layer.weights = [layer.weight]
    >>> weight = torch.ones(1, 1)
    >>> twin = copied(layer, {id(layer.weight): weight})
    >>> twin.weight is weight, twin.weights[0] is weight
    (True, True)
    """
    return _copied(module, replaced, reachable_tensors(module))


@plain_tensors()
def _copied(module: Module, replaced: Mapping[int, Any], tensors: list[Tensor]) -> Module:
    """Copy a network that holds these tensors.

    The copy can be trained, also where it is made in inference mode.
    """
    memo: dict[int, Any] = dict(replaced)
    for group in overlapping(tensors):
        if all(id(tensor) not in memo for tensor in group):
            memo.update(rebuilt(group))
    with torch._C.DisableTorchFunction():
        refused = [t for t in tensors if t.grad_fn is not None or t.layout != torch.strided]
    for tensor in refused:
        # deepcopy refuses tensors with a history and some sparse ones.
        memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        fill_in(module, memo)
        twin = copy.deepcopy(module, memo)
        redirect(twin, memo, replaced.values())
        return twin
    except Exception as error:
        raise ArchitectureError(
            f"Expected a network that copy.deepcopy can copy, so that it stays untouched, but "
            f"{type(module).__name__} raised {type(error).__name__}: {error}. Give what cannot be copied a "
            f"__deepcopy__, or keep it outside of the module."
        ) from error


def inputs_like(inputs: ExampleInputs, made: Callable[[Tensor], Tensor] = torch.clone) -> ExampleInputs:
    """Copy inputs with every tensor replaced.

    Tensors at any depth are replaced by what is made of them.

    >>> inputs_like({"x": [torch.ones(2)], "flag": True}, torch.zeros_like)
    {'x': [tensor([0., 0.])], 'flag': True}
    """
    with torch.no_grad():
        return replaced(inputs, lambda tensor: made(tensor.detach()))


def evaluation_copy(module: nn.Module) -> nn.Module:
    """Copy a module in eval mode, sharing parameters.

    The copy is a new tree of modules.

    It costs no memory for weights and lets the mode of single layers be changed, buffers be written and
    attributes be set without touching the original. Writing to its parameters would write to the original's.

    Example:
        >>> layer = nn.Dropout()
        >>> evaluation_copy(layer).training, layer.training
        (False, True)
    """
    return in_mode(standalone_copy(module, share_parameters=True), False)


def training_copy(module: nn.Module) -> nn.Module:
    """Copy a module in training mode without chance.

    Batch statistics are left out, too. The copy shares parameters like :func:`evaluation_copy`.

    Dropout and norm layers stay in eval mode: what is left of training mode are other branches of the forward.

    Example:
        >>> [child.training for child in training_copy(nn.Sequential(nn.Dropout(), nn.Tanh()))]
        [False, True]
    """
    twin = in_mode(standalone_copy(module, share_parameters=True), True)
    for child in twin.modules():
        if isinstance(child, (_NormBase, _DropoutNd)):
            child.training = False
    return twin
