"""Tensors of a network that lie in the same memory, such as views of a weight that are kept as attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkhorn_rebasin.networks.reachable import reachable_tensors


def memory_of(tensor: Tensor) -> int | None:
    """Identify a tensor's memory while it lives.

    Tensors in the same memory share it. None for tensors without memory of their own.

    >>> weight = torch.zeros(3, 2)
    >>> memory_of(weight) == memory_of(weight.t()), memory_of(torch.zeros(0))
    (True, None)
    """
    if _is_wrapped(tensor) or tensor.numel() == 0:
        return None
    with torch._C.DisableTorchFunction():  # nobody is given the memory to write to
        return tensor.untyped_storage()._cdata


def overlapping(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group tensors that overlap in memory.

    They are not one but have memory in common with others of the same storage.

    >>> weight = torch.zeros(3, 2)
    >>> [len(group) for group in overlapping([weight, weight.t(), torch.zeros(2)])]
    [2]
    """
    by_storage: dict[int, dict[int, Tensor]] = {}
    with torch._C.DisableTorchFunction():  # modes would be asked about every length and stride
        for tensor in tensors:
            memory = memory_of(tensor)
            if memory is not None:
                by_storage.setdefault(memory, {})[id(tensor)] = tensor
        groups = [list(group.values()) for group in by_storage.values() if len(group) > 1]
        return [group for group in groups if _meet(group)]


def views_at(module: nn.Module, replaced: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Make the views of tensors that were replaced.

    They are the same views of what replaces the tensors, by their ids.

    >>> layer = nn.Linear(2, 3)
    >>> layer.transposed = layer.weight.detach().t()
    >>> weight = torch.ones(3, 2)
    >>> views_at(layer, {id(layer.weight): weight})[id(layer.transposed)].shape
    torch.Size([2, 3])
    """
    views: dict[int, Tensor] = {}
    for group in overlapping(reachable_tensors(module)):
        bases = [tensor for tensor in group if id(tensor) in replaced]
        for tensor in group:
            if id(tensor) in replaced:
                continue
            base = next((base for base in bases if _lies_within(tensor, base)), None)
            if base is not None:
                views[id(tensor)] = _same_view(tensor, base, replaced[id(base)])
    return views


def rebuilt(group: list[Tensor]) -> dict[int, Tensor]:
    """Copy tensors with memory in common.

    The copies have theirs in common as well, and come by the originals' ids.
    """
    with torch.no_grad(), torch._C.DisableTorchFunction():
        storage = group[0].untyped_storage().clone()
        return {id(tensor): _like(tensor, _placed(tensor, storage)) for tensor in group}


def aliases(module: nn.Module, tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """Make parameters in the same memory.

    There is one for each of a module's, and the same for their views among ``tensors``, by the originals' ids.
    Parameters of other classes than PyTorch's, and those made in inference mode, stand for themselves.
    """
    shared: dict[int, Tensor] = {}
    for parameter in module.parameters():
        plain = type(parameter) is nn.Parameter and not parameter.is_inference()
        shared[id(parameter)] = _like(parameter, parameter.detach()) if plain else parameter
    for group in overlapping(tensors):
        if any(id(tensor) in shared for tensor in group):
            for tensor in group:
                shared.setdefault(id(tensor), tensor.detach())
    return shared


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    if isinstance(tensor, nn.Parameter):
        alias: Tensor = nn.Parameter(values, requires_grad=tensor.requires_grad)
        vars(alias).update(vars(tensor))
        return alias
    return values.requires_grad_() if tensor.requires_grad and tensor.is_leaf else values


def _placed(tensor: Tensor, storage: torch.UntypedStorage) -> Tensor:
    place = (tensor.storage_offset(), tensor.size(), tensor.stride())
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, *place)


def _is_wrapped(tensor: Tensor) -> bool:
    """Tell whether a tensor is not plain memory.

    It is of another class, or its values are not simply what lies in its memory.
    """
    other = type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided
    return other or tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or tensor.is_meta


def _bounds(tensor: Tensor) -> tuple[int, int]:
    """Return the first and last byte of memory.

    Of columns that interleave it is all between them.
    """
    length = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + (length + 1) * tensor.element_size()


def _meet(group: list[Tensor]) -> bool:
    bounds = sorted(_bounds(tensor) for tensor in group)
    return any(later[0] < earlier[1] for earlier, later in pairwise(bounds))


def _lies_within(view: Tensor, base: Tensor) -> bool:
    (start, end), (first, last) = _bounds(view), _bounds(base)
    dense = base.numel() * base.element_size() == last - first
    return dense and view.dtype == base.dtype and first <= start and end <= last


def _same_view(view: Tensor, base: Tensor, given: Tensor) -> Tensor:
    """Make the same view of another tensor.

    It lies in ``given`` where the view lies in the base, and is differentiable in it.
    """
    if given.stride() != base.stride():
        given = torch.empty_strided(base.shape, base.stride(), dtype=given.dtype, device=given.device).copy_(
            given
        )
    offset = view.storage_offset() - base.storage_offset() + given.storage_offset()
    return given.as_strided(view.size(), view.stride(), offset)


def storage_key(tensor: Tensor) -> int:
    """Identify a tensor's storage.

    Two tensors in the same memory share it while both live.
    """
    if tensor.layout != torch.strided:
        return id(tensor)
    with torch._C.DisableTorchFunction():  # nobody else asks
        return tensor.untyped_storage()._cdata


def element_offsets(tensor: Tensor) -> NDArray[np.int64]:
    """Return the memory offsets of a tensor's elements.

    They come in the elements' order.
    """
    return memory_offsets(tensor.shape, tensor.stride(), int(tensor.storage_offset())).ravel()


def memory_offsets(shape: Sequence[int], strides: Sequence[int], start: int) -> NDArray[np.int64]:
    """Return the memory offsets of a strided view.

    There is one for every element.
    """
    places = np.full(tuple(shape), start, dtype=np.int64)
    for axis, stride in enumerate(strides):
        places += (np.arange(shape[axis]) * stride).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
    return places
