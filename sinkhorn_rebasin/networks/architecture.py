"""Which tensors a network is made of, and whether a state fits it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError, prefix_hint, unbuilt_message
from sinkhorn_rebasin.networks.support import check_values

Module = TypeVar("Module", bound=nn.Module)


def tensors_of(module: nn.Module) -> State:
    """Return the tensors of a module's state dict.

    Extra state of other kinds is left out.

    Example:
        >>> list(tensors_of(nn.Linear(2, 3)))
        ['weight', 'bias']
    """
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def tied_names(module: nn.Module) -> list[list[str]]:
    """Group the names of tied tensors.

    Names of a group are one and the same parameter or buffer.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> second.weight = first.weight
        >>> tied_names(nn.Sequential(first, second))
        [['0.weight', '1.weight']]
    """
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    for name, buffer in module.named_buffers(remove_duplicate=False):
        names[id(buffer)].append(name)
    return [group for group in names.values() if len(group) > 1]


def check_state(module: nn.Module, state: StateLike, role: str) -> None:
    """Raise ArchitectureError unless a state fits a module.

    It must have exactly the module's names and shapes. The module's layers must be built, and their weights tensors.

    Of names that share one tensor in the module, one is enough.

    Example:
        >>> check_state(nn.Linear(2, 1), nn.Linear(2, 1).state_dict(), "start")
    """
    check_values(module)
    own = tensors_of(module)
    for name in state:
        if name not in own:
            raise ArchitectureError(
                f"Expected the {role} state to fit the network but it has no {name!r}.{prefix_hint(state, own)}"
            )
        if message := unbuilt_message(name, state[name]):
            raise ArchitectureError(message)
        if state[name].shape != own[name].shape:
            raise ArchitectureError(
                f"Expected {name!r} of shape {tuple(own[name].shape)} in the {role} state"
                f" but got {tuple(state[name].shape)}."
            )
    spared = {name for names in tied_names(module) if any(tied in state for tied in names) for name in names}
    for name in own:
        if name not in state and name not in spared:
            raise ArchitectureError(f"Expected the {role} state to hold {name!r} but it is missing.")


def check_same(start: StateLike, end: StateLike, *, apart: Collection[str] = (), hint: str = "") -> None:
    """Raise ArchitectureError unless two states are alike.

    They must agree in names and shapes. The first difference is named. Tensors ``apart`` may differ in shape. A
    ``hint`` ends the message of other shapes.

    Example:
        >>> check_same(nn.Linear(2, 1).state_dict(), nn.Linear(2, 1).state_dict())
    """
    for name in [*start, *end]:
        if name not in start or name not in end:
            holder = "first" if name in start else "second"
            raise ArchitectureError(
                f"Expected both networks to have the same parameters but only the {holder} has {name!r}."
                f"{prefix_hint(start, end) or prefix_hint(end, start)}"
            )
        if start[name].shape != end[name].shape and name not in apart:
            raise ArchitectureError(
                f"Expected {name!r} to have one shape in both networks"
                f" but got {tuple(start[name].shape)} and {tuple(end[name].shape)}.{hint}"
            )


def real_view(tensor: Tensor) -> Tensor:
    """View a complex tensor as pairs of reals.

    The pairs lie along a new last axis. Any other tensor is returned as it is.

    Example:
        >>> real_view(torch.tensor([1 + 2j])).tolist()
        [[1.0, 2.0]]
    """
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def single_precision(tensor: Tensor) -> Tensor:
    """Convert to single precision at least.

    Sums over all weights and small gradients are lost in half.

    >>> single_precision(torch.ones(1).half()).dtype, single_precision(torch.ones(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(wider(tensor.dtype))


def double_precision(tensor: Tensor) -> Tensor:
    """Convert to double precision, complex numbers to complex ones.

    >>> double_precision(torch.ones(1).half()).dtype, double_precision(torch.ones(1) * 1j).dtype
    (torch.float64, torch.complex128)
    """
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def wider(dtype: torch.dtype) -> torch.dtype:
    """Return a type with single precision at least.

    Eight-bit floats have no rules of promotion.

    >>> wider(torch.float8_e4m3fn), wider(torch.float64), wider(torch.complex64)
    (torch.float32, torch.float64, torch.complex64)
    """
    return torch.float32 if dtype.itemsize == 1 else torch.promote_types(dtype, torch.float32)


def sharing_memory(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Find pairs of tensors that overlap in memory.

    They are views of each other, and not one tensor under two names.

    >>> weight = torch.zeros(3, 2)
    >>> sharing_memory({"encoder": weight, "decoder": weight.t(), "other": torch.zeros(2)})
    [('encoder', 'decoder')]
    """
    by_storage: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.numel():
            by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(name)
    return [
        pair
        for names in by_storage.values()
        for pair in combinations(names, 2)
        if tensors[pair[0]] is not tensors[pair[1]] and _meet(*(tensors[name] for name in pair))
    ]


def _meet(first: Tensor, second: Tensor) -> bool:
    """Tell whether the memory of two tensors overlaps.

    Columns that interleave are taken to overlap.
    """
    starts, ends = [], []
    for tensor in (first, second):
        length = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        starts.append(tensor.data_ptr())
        ends.append(tensor.data_ptr() + (length + 1) * tensor.element_size())
    return max(starts) < min(ends)


def named_tensors(module: nn.Module) -> State:
    """Return parameters and buffers by name.

    Tied ones come under each of their names. They are not detached.
    """
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def parameter_names_of(module: nn.Module) -> list[str]:
    """List the names of a network's parameters, tied ones once.

    >>> parameter_names_of(nn.BatchNorm1d(2))
    ['weight', 'bias']
    """
    saved = tensors_of(module)
    return [name for name, _ in module.named_parameters() if name in saved]


def learn_parameters(module: Module, learned: bool) -> Module:
    """Let gradients reach a network's parameters, or none.

    Returns the network. Whole numbers among them have no gradient.

    >>> layer = nn.Linear(2, 2)
    >>> layer.order = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)
    >>> [parameter.requires_grad for parameter in learn_parameters(layer, True).parameters()]
    [True, True, False]
    """
    for parameter in module.parameters():
        parameter.requires_grad_(learned and (parameter.is_floating_point() or parameter.is_complex()))
    return module


def check_heads(heads: object) -> None:
    """Raise ArchitectureError unless ``heads=`` names a network, or is None.

    >>> check_heads("reference")
    """
    if heads is not None and heads not in ("reference", "target"):
        raise ArchitectureError(f"Expected heads to be 'reference' or 'target' but got {heads!r}.")
