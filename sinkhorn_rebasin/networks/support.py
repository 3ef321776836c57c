"""What a network must be so that it can be copied, run at other weights, and followed."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sinkhorn_rebasin.errors import ArchitectureError, unbuilt_message


def check_supported(module: nn.Module) -> None:
    """Raise ArchitectureError for networks without plain weights.

    They are wrappers, scripts, layers that are not built yet, and tensors without values.

    >>> check_supported(nn.Linear(2, 3))
    """
    check_module(module)
    check_not_parallel(module)
    for name, child in module.named_modules():
        where = _place(name, child)
        if isinstance(child, torch.jit.ScriptModule):
            raise ArchitectureError(
                f"Expected a network of Python modules but got the compiled script {where}: use the module it was "
                f"made of."
            )
        if "_orig_mod" in child._modules:
            raise ArchitectureError(
                f"Expected a plain network but got the output of torch.compile, {where}: use its ._orig_mod."
            )
    check_values(module)


def check_not_parallel(module: nn.Module) -> None:
    """Raise ArchitectureError for wrappers that run on several devices.

    >>> check_not_parallel(nn.Linear(2, 3))
    """
    for name, child in module.named_modules():
        if isinstance(child, (DataParallel, DistributedDataParallel)):
            raise ArchitectureError(
                f"Expected a plain network but got the wrapper {_place(name, child)}: use its .module."
            )


def _place(name: str, child: nn.Module) -> str:
    """Say what a layer is and where it stands."""
    return f"{type(child).__name__} at {name!r}" if name else type(child).__name__


def check_module(module: object) -> None:
    """Raise ArchitectureError unless a network is a module.

    >>> check_module(nn.Linear(2, 3))
    """
    if isinstance(module, nn.Module):
        return
    remedy = ": load it into its network first" if isinstance(module, (Mapping, str, PathLike)) else ""
    raise ArchitectureError(
        f"Expected a network, an nn.Module, which can be run, but got {type(module).__name__}{remedy}."
    )


def check_values(module: nn.Module) -> None:
    """Raise ArchitectureError unless weights are tensors with values.

    A parameter or buffer may not be built yet. Quantized layers pack their weights into objects of C++.
    """
    check_module(module)
    for name, child in module.named_modules():
        if any(isinstance(value, torch.ScriptObject) and _packs(value) for value in vars(child).values()):
            layer = name.split("._packed_params")[0].split("._all_weight_values")[0]
            raise ArchitectureError(
                f"Expected a network whose weights are tensors but the quantized layer {layer!r} "
                f"packs its own: align or merge the networks before they are quantized."
            )
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, tensor in tensors:
            if message := unbuilt_message(name, tensor, kind):
                raise ArchitectureError(message)
            if tensor.is_meta:
                raise ArchitectureError(
                    f"Expected a network with values but got the {kind} {name!r} on the meta device: load its "
                    f"weights first."
                )


def _packs(value: torch.ScriptObject) -> bool:
    """Tell whether an object holds the weights of a quantized layer."""
    return value._type().qualified_name().split(".")[-2] in ("quantized", "rnn")
