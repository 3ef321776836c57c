"""What a fine-tune changed: the difference of two networks of one architecture, checked before it is carried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import ArchitectureError, prefix_hint
from sinkhorn_rebasin.networks.architecture import double_precision, named_tensors, tensors_of
from sinkhorn_rebasin.networks.support import check_supported


@dataclass(frozen=True)
class Update:
    """Hold the difference of a tuned network and its base.

    Attributes:
        difference: tuned minus base of every parameter that both have in one shape, in double precision.
        heads: parameters whose first axis has another length in the tuned network: labels of another set.
        buffers: names of buffers in which the two differ; they are statistics or counts, and are not added.
    """

    difference: State
    heads: tuple[str, ...]
    buffers: tuple[str, ...]


def update_of(tuned: nn.Module, base: nn.Module) -> Update:
    r"""Subtract a base from its fine-tune.

    .. math:: \Delta = \theta_{\mathrm{tuned}} - \theta_{\mathrm{base}}

    Raises:
        ArchitectureError: the two differ in a tensor's name or shape, which is named; a parameter is an integer, is
            quantised or is not finite; or nothing was changed.

    Example:
        >>> base = nn.Linear(2, 1)
        >>> tuned = nn.Linear(2, 1)
        >>> update = update_of(tuned, base)
        >>> torch.allclose(base.weight + update.difference["weight"], tuned.weight.double())
        True
    """
    for network in (tuned, base):
        check_supported(network)
    first, second = (_parameters(network) for network in (tuned, base))
    heads = differing_heads(tensors_of(tuned), tensors_of(base), "tuned network", "base")
    for role, parameters in (("tuned network", first), ("base", second)):
        for name, tensor in parameters.items():
            check_real(name, tensor, role)
    difference = {name: _subtracted(first[name], second[name]) for name in second if name not in heads}
    for name, tensor in difference.items():
        if not bool(tensor.abs().sum().isfinite()):
            raise ArchitectureError(
                f"Expected a finite update but {name!r} of the tuned network minus its base is not finite."
            )
    if not any(bool(tensor.any()) for tensor in difference.values()):
        raise ArchitectureError(
            "Expected a tuned network that differs from its base but every parameter is equal: there is nothing to "
            "carry. Were the two networks given twice?"
        )
    return Update(
        difference, tuple(name for name in second if name in heads), _differing_buffers(tuned, base)
    )


def differing_heads(first: State, second: State, ours: str, theirs: str) -> set[str]:
    """Name tensors that have another number of labels.

    Raises:
        ArchitectureError: two states differ in a name, or in more than the length of a first axis; the first
            difference is named.

    >>> sorted(differing_heads(nn.Linear(2, 3).state_dict(), nn.Linear(2, 1).state_dict(), "tuned", "base"))
    ['bias', 'weight']
    """
    heads = set()
    for name in [*first, *second]:
        if name not in first or name not in second:
            holder = ours if name in first else theirs
            raise ArchitectureError(
                f"Expected the {ours} to be of the architecture of the {theirs} but only the {holder} has {name!r}."
                f"{prefix_hint(first, second) or prefix_hint(second, first)}"
            )
        shapes = tuple(first[name].shape), tuple(second[name].shape)
        if shapes[0] == shapes[1]:
            continue
        if not shapes[0] or len(shapes[0]) != len(shapes[1]) or shapes[0][1:] != shapes[1][1:]:
            raise ArchitectureError(
                f"Expected the {ours} to be of the architecture of the {theirs} but {name!r} has the shapes "
                f"{shapes[0]} and {shapes[1]}."
            )
        heads.add(name)
    return heads


def check_real(name: str, tensor: Tensor, role: str) -> None:
    """Raise ArchitectureError unless a parameter can be added to.

    >>> check_real("weight", torch.ones(2), "base")
    """
    if tensor.is_quantized or not (tensor.is_floating_point() or tensor.is_complex()):
        raise ArchitectureError(
            f"Expected parameters of floating point but {name!r} of the {role} is {tensor.dtype}: carry between the "
            f"networks before they are quantised, or dequantise them first."
        )


def wide(tensor: Tensor) -> Tensor:
    """Convert to double precision.

    >>> wide(torch.ones(1)).dtype
    torch.float64
    """
    return double_precision(tensor.detach())


def _parameters(network: nn.Module) -> State:
    return {name: tensor.detach() for name, tensor in network.named_parameters(remove_duplicate=False)}


def _subtracted(tuned: Tensor, base: Tensor) -> Tensor:
    # Masks of minus infinity that a fine-tune left alone are no update.
    return torch.where(tuned == base, 0.0, wide(tuned) - wide(base))


def _differing_buffers(tuned: nn.Module, base: nn.Module) -> tuple[str, ...]:
    parameters = {name for name, _ in base.named_parameters(remove_duplicate=False)}
    first, second = named_tensors(tuned), named_tensors(base)
    return tuple(
        name
        for name, buffer in second.items()
        if name not in parameters and name in first and not torch.equal(first[name], buffer)
    )
