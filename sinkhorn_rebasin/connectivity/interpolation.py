"""Mixing two states of a network: which tensors have a mean, and what the others are on the way.

Weights and running statistics of norm layers are mixed. Of other buffers (masks, quantised weights, counters) a mean
is none: on the way they are those of the nearer end, so that both ends are exact.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning
from sinkhorn_rebasin.networks.architecture import wider
from sinkhorn_rebasin.networks.frozen import former_names
from sinkhorn_rebasin.permutations.action import dense_gradient

Name = TypeVar("Name", bound=Hashable)

_COUNTER = "num_batches_tracked"


def whole_tensors(module: nn.Module, statistics: Collection[str] = ()) -> frozenset[str]:
    """Name the tensors of a network that stay whole.

    They are not mixed: neither weights nor statistics. Statistics are the buffers of layers that keep a
    ``running_mean`` and a ``running_var``, the scale and shift that frozen batch norm has as buffers among them, and
    those named. Their counters are left out: nothing depends on them.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> layer.register_buffer("mask", torch.ones(2, dtype=torch.bool))
        >>> sorted(whole_tensors(layer))
        ['mask']
    """
    return frozenset(
        name
        for name, tensor, averaged in _roles(module)
        if not (averaged or name in statistics) or not is_mixable(tensor)
    )


def _roles(module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """List what a network saves, and its role.

    Yields name, tensor, and whether it is a weight or a statistic. Counters are left out.
    """
    for prefix, child in module.named_modules(remove_duplicate=False):
        weights = {*child._parameters, *former_names(child)}
        norm = isinstance(child, _NormBase) or {"running_mean", "running_var"} <= child._buffers.keys()
        for name, tensor in [*child._parameters.items(), *child._buffers.items()]:
            saved = tensor is not None and name not in child._non_persistent_buffers_set
            if saved and not (norm and name == _COUNTER):
                yield f"{prefix}.{name}" if prefix else name, tensor, norm or name in weights


def singular_vectors(network: nn.Module) -> frozenset[str]:
    """Name the buffers in which spectral norm keeps a weight's first singular vectors.

    A mean of such vectors of two weights is shorter, and the norm that it gives is too small.

    >>> sorted(singular_vectors(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3))))
    ['parametrizations.weight.0._u', 'parametrizations.weight.0._v']
    """
    names = set()
    for path, child in network.named_modules(remove_duplicate=False):
        hooks = [hook for hook in child._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]
        kept = ["_u", "_v"] if isinstance(child, _SpectralNorm) else []
        kept += [f"{hook.name}{end}" for hook in hooks for end in ("_u", "_v")]
        names |= {f"{path}.{name}" if path else name for name in kept}
    return frozenset(names)


def interpolate(start: StateLike, end: StateLike, at: float | Tensor, whole: Collection[str]) -> State:
    """Mix two states of one network.

    Position 0 is the start and 1 the end. The tensors are new. Where both have the same number, also an infinite one,
    the mixture has it too. Those in ``whole``, integers, booleans and sparse tensors are those of the nearer end, at
    ½ of the end.

    Raises:
        ArchitectureError: the position is a tensor with more than one entry.

    Example:
        >>> start = {"weight": torch.tensor([0.0, -torch.inf]), "mask": torch.tensor([1.0])}
        >>> end = {"weight": torch.tensor([4.0, -torch.inf]), "mask": torch.tensor([0.0])}
        >>> interpolate(start, end, 0.25, whole={"mask"})
        {'weight': tensor([1., -inf]), 'mask': tensor([1.])}
    """
    check_position(at)
    mixed = {
        name: end[name]
        for name, tensor in start.items()
        if name not in whole and is_mixable(tensor) and is_mixable(end[name])
    }
    odd = possibly_infinite(mixed)
    return {
        name: lerp(tensor, mixed[name], at, finite=name not in odd)
        if name in mixed
        else nearer(tensor, end[name], at)
        for name, tensor in start.items()
    }


class Interpolation:
    """Mix states of one network.

    Warns once of the buffers that differ and have no mean.

    Args:
        module: the network.
        statistics: names of float buffers that are mixed too.

    Attributes:
        statistics: the same.
        whole: names of the tensors that are those of the nearer end.
    """

    def __init__(self, module: nn.Module, statistics: Collection[str] = ()) -> None:
        self.statistics = statistics
        self.whole = whole_tensors(module, statistics)
        self._told = self.whole - singular_vectors(module)  # no average of the user's
        self._compared = False

    def __call__(self, start: StateLike, end: StateLike, at: float | Tensor) -> State:
        """Mix two states: see :func:`interpolate`."""
        if not self._compared:
            self._compared = True
            warn_of_whole(start, end, self._told, stacklevel=4)
        return interpolate(start, end, at, self.whole)


def lerp(start: Tensor, end: Tensor, at: float | Tensor, *, finite: bool | None = None) -> Tensor:
    """Mix two tensors, rounding once.

    They are mixed in single precision at least.

    Args:
        start, end: the tensors at 0 and at 1.
        at: where between them.
        finite: whether the end is known to hold finite numbers alone; None looks.

    Example:
        >>> lerp(torch.tensor([-torch.inf, 1.0]), torch.tensor([-torch.inf, 3.0]), 0.5).tolist()
        [-inf, 2.0]
    """
    start, end = common_type(start, end)
    finite = not possibly_infinite({"end": end}) if finite is None else finite
    given = (start, end, at) if isinstance(at, Tensor) else (start, end)
    constant = not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given))
    if not isinstance(at, Tensor) and at in (0, 1) and (constant or not finite):
        return (end if at else start).clone()
    first, last = start.to(wider(start.dtype)), end.to(wider(start.dtype))
    weight = at.to(first) if isinstance(at, Tensor) else at
    if constant:
        same = (first == last) | ((first != first) & (last != last))
        return torch.where(same, start, torch.lerp(first, last, weight).to(start.dtype))
    if finite:
        return dense_gradient(torch.lerp(first, last, weight).to(start.dtype))
    # Equal numbers have a difference of zero, infinite ones have none; their gradients count all the same.
    same = (first == last) & ~first.isfinite()
    mixed = torch.lerp(first.masked_fill(same, 0), last.masked_fill(same, 0), weight)
    return dense_gradient(torch.where(same, first, mixed).to(start.dtype))


def nearer(start: Tensor, end: Tensor, at: float | Tensor) -> Tensor:
    """Copy the tensor of the nearer end.

    At ½ that is the end's.
    """
    if not isinstance(at, Tensor):
        return (start if at < 0.5 else end).clone()
    if start.layout != torch.strided or start.is_quantized:
        return (start if bool(at < 0.5) else end).clone()
    return torch.where(at.to(start.device) < 0.5, start, end.to(start.dtype))


def warn_of_whole(start: StateLike, end: StateLike, whole: Collection[str], *, stacklevel: int = 3) -> None:
    """Warn once of differing tensors that stay whole.

    They differ between two states and are not mixed.
    """
    differing = [
        name for name in start if name in whole and name in end and not same_values(start[name], end[name])
    ]
    if differing:
        warnings.warn(
            f"Expected buffers other than the running statistics of norm layers to be equal in both networks but "
            f"{', '.join(map(repr, differing))} differ. Between the ends, where no mean can stand for them, they are "
            f"those of the nearer end: of the start below ½, of the end from ½ on. Where one is a statistic that "
            f"can be averaged, name it in statistics=. Where both networks had the same before one was moved, "
            f"spec.holding(network, ...) keeps it in place.",
            RebasinWarning,
            stacklevel=stacklevel + 1,
        )


def same_values(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors hold the same numbers.

    NaN counts as equal to NaN.

    >>> same_values(torch.tensor([torch.nan, -torch.inf]), torch.tensor([torch.nan, -torch.inf]))
    True
    """
    one, other = (_comparable(tensor.detach()) for tensor in (one, other))
    other = other.to(one.device)
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def _comparable(tensor: Tensor) -> Tensor:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    dense = dense.dequantize() if dense.is_quantized else dense
    return dense.to(wider(dense.dtype)) if dense.is_floating_point() else dense


def is_mixable(tensor: Tensor) -> bool:
    """Tell whether a tensor's numbers have a mean."""
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout == torch.strided


def common_type(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Convert two tensors to a type for both.

    It holds the numbers of both.
    """
    if first.dtype == second.dtype:
        return first, second
    dtype = torch.promote_types(
        *(wider(t.dtype) if t.dtype.itemsize < 2 else t.dtype for t in (first, second))
    )
    return first.to(dtype), second.to(dtype)


def check_position(at: float | Tensor) -> None:
    """Raise ArchitectureError unless a position is one number."""
    if not isinstance(at, (Tensor, int, float)) and not hasattr(at, "__float__"):
        raise ArchitectureError(f"Expected a number or a 0-d tensor as position but got {at!r}.")
    if isinstance(at, Tensor) and at.ndim != 0:
        raise ArchitectureError(
            f"Expected a number or a 0-d tensor as position but got shape {tuple(at.shape)}."
        )


def possibly_infinite(tensors: Mapping[Name, Tensor]) -> set[Name]:
    """Name the tensors that may hold infinite numbers.

    They are all that do, and those with too large a sum.

    >>> possibly_infinite({"a": torch.ones(2), "b": torch.tensor([0.0, torch.inf])})
    {'b'}
    """
    # A sum reads faster than a comparison does, and all are waited for at once.
    sums = [tensor.detach().to(wider(tensor.dtype)).sum().isfinite() for tensor in tensors.values()]
    if not sums:
        return set()
    try:
        finite = torch.stack([value.to(sums[0].device) for value in sums]).tolist()
    except RuntimeError:  # under vmap there is no single answer
        return set(tensors)
    return {name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite}
