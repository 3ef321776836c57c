"""Networks as they are given: modules, states, checkpoints and paths, all read in this one way."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import NetworkLike, State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError, DataError, unbuilt_message
from sinkhorn_rebasin.files.weights_file import read_weights, state_in, unwrapped
from sinkhorn_rebasin.networks.architecture import check_state, single_precision, tensors_of
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.support import check_supported, check_values

FORMS = "a module, a state dict, a dict with a state_dict in it, or the path of a file of weights"


def state_of(network: NetworkLike, role: str = "network", known: Collection[str] = ()) -> State:
    """Return the detached tensors of a network, however it is given.

    Args:
        network: a module, a state dict, a dict with a ``state_dict`` in it, or the path of a ``.safetensors`` or
            ``.pt`` file, of which nothing is run.
        role: what the network is called in messages.
        known: names that it has; a wrapper's prefix is taken off where they then fit.

    Raises:
        ArchitectureError: it is something else, or has tensors without values.
        CheckpointError: the file does not load, or holds no weights.

    >>> layer = nn.Linear(2, 1)
    >>> state = state_of({"state_dict": {"module.weight": layer.weight, "module.bias": layer.bias}}, known=["weight"])
    >>> sorted(state)
    ['bias', 'weight']
    """
    if isinstance(network, nn.Module):
        check_values(network)
        tensors: StateLike = tensors_of(network)
    else:
        tensors = unwrapped(_content(network, role), known)
        for name, tensor in tensors.items():
            if message := unbuilt_message(name, tensor):
                raise ArchitectureError(message)
    return {name: tensor.detach() for name, tensor in tensors.items()}


def module_of(network: NetworkLike, role: str, like: NetworkLike | None = None) -> nn.Module:
    """Return a network that runs: itself, or a copy of another module at its weights.

    Args:
        network: as for :func:`state_of`.
        role: what the network is called in messages.
        like: a module of the same architecture, for networks that are given as weights alone.

    Raises:
        ArchitectureError: no module was given, or its tensors differ from the weights; the first is named.
        CheckpointError: as :func:`state_of`.

    >>> layer = nn.Linear(2, 1)
    >>> module_of({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, "target", layer)(torch.ones(2)).item()
    3.0
    """
    if isinstance(network, nn.Module):
        check_supported(network)
        return network
    if not isinstance(like, nn.Module):
        _content(network, role)
        raise ArchitectureError(
            f"Expected the {role} to be a module, which can be run, but got weights alone: load them into their "
            f"network first."
        )
    check_supported(like)
    own = tensors_of(like)
    state = state_of(network, role, own)
    check_state(like, state, role)
    for name, tensor in state.items():
        if tensor.dtype != own[name].dtype:
            raise ArchitectureError(
                f"Expected {name!r} of the {role} to be {own[name].dtype}, as in the module that runs it, but got "
                f"{tensor.dtype}; convert one of them with .to(...)."
            )
    twin = standalone_copy(like)
    with torch.no_grad():
        twin.load_state_dict(state, strict=False)  # tied tensors may be named once; names are checked
    return twin


def modules_of(reference: NetworkLike, target: NetworkLike) -> tuple[nn.Module, nn.Module]:
    """Return two networks that run; one of them may be weights alone, which the other's module runs.

    Raises:
        ArchitectureError, CheckpointError: as :func:`module_of`.

    >>> layer = nn.Linear(2, 1)
    >>> first, second = modules_of(layer.state_dict(), layer)
    >>> first is layer, second is layer
    (False, True)
    """
    return module_of(reference, "reference", target), module_of(target, "target", reference)


def networks_of(
    reference: NetworkLike,
    target: NetworkLike | Sequence[NetworkLike],
    like: nn.Module | None = None,
) -> list[nn.Module]:
    """List the reference and all others as networks that run.

    A container of layers is one network. One module runs all that are given as weights alone.

    Raises:
        ArchitectureError, CheckpointError: as :func:`module_of`.
        DataError: there is no target.

    >>> len(networks_of(nn.Linear(2, 1), [nn.Linear(2, 1), nn.Linear(2, 1)]))
    3
    """
    targets = [target] if isinstance(target, str) or not isinstance(target, Sequence) else list(target)
    if not targets:
        raise DataError("Expected at least one target but got none.")
    networks = [reference, *targets]
    like = like or next((network for network in networks if isinstance(network, nn.Module)), None)
    roles = ["reference", *("target" for _ in targets)]
    return [module_of(network, role, like) for network, role in zip(networks, roles, strict=True)]


def check_weights(state: StateLike, role: str, parameters: Iterable[str]) -> None:
    """Raise ArchitectureError for weights of which no mean can be taken.

    They are quantized, or hold NaN. Their tensor is named.

    >>> check_weights({"w": torch.ones(2)}, "target", ["w"])
    """
    for name, tensor in state.items():
        if tensor.is_quantized or (tensor.dtype == torch.int8 and tensor.dim() > 1):
            _refuse_quantized(name, tensor, role)
    sums = {}
    for name in parameters:
        tensor = state[name]
        if tensor.dtype in (torch.int8, torch.uint8):
            _refuse_quantized(name, tensor, role)
        if (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_meta:
            sums[name] = single_precision(tensor).sum()
    for name, total in sums.items():
        if not bool(total.isfinite()) and bool(single_precision(state[name]).isnan().any()):
            raise ArchitectureError(
                f"Expected weights that are numbers but {name!r} of the {role} holds NaN: its training has diverged."
            )


def _refuse_quantized(name: str, tensor: Tensor, role: str) -> None:
    kind = str(tensor.dtype).removeprefix("torch.")
    raise ArchitectureError(
        f"Expected weights in floating point but got {kind} in {name!r} of the {role}: align the network before it "
        f"is quantized, or dequantize it."
    )


def _content(network: Any, role: str) -> State:
    """Read weights that are given in another way than as a module."""
    if isinstance(network, (str, os.PathLike)):
        return read_weights(network)
    if isinstance(network, Mapping):
        try:
            return state_in(network, f"the {role}")
        except CheckpointError as error:
            if not network:
                return {}
            raise ArchitectureError(str(error)) from error
    raise ArchitectureError(f"Expected the {role} to be {FORMS} but got {_described(network)}.")


def _described(network: Any) -> str:
    if isinstance(network, type):
        return f"the class {network.__name__}: make one"
    article = "an" if type(network).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(network).__name__}"
