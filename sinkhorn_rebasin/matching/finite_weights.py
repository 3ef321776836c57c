"""Weights that can be compared: infinite ones have finite stand-ins."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import real_view, single_precision
from sinkhorn_rebasin.permutations import PermutationSpec


def comparable_states(reference: State, target: State, spec: PermutationSpec) -> tuple[State, State]:
    """Give infinite weights finite stand-ins, larger than all others, so that they are matched with their like.

    Raises:
        ArchitectureError: a weight is not a number; its tensor is named.

    Example:
        >>> spec = PermutationSpec((), (), {"w": (2,)})
        >>> state = {"w": torch.tensor([3.0, -torch.inf])}
        >>> comparable_states(state, state, spec)[0]["w"].tolist()
        [3.0, -30.0]
    """
    pair = dict(reference), dict(target)
    for name in spec.parameters:
        tensors = [single_precision(state[name]) for state in pair]
        if all(bool(tensor.sum().isfinite()) for tensor in tensors):
            if tensors[0].dtype != reference[name].dtype and reference[name].dtype.itemsize == 1:
                pair[0][name], pair[1][name] = tensors  # eight-bit numbers cannot be sorted
            continue
        parts = [real_view(tensor) for tensor in tensors]
        for part, whose in zip(parts, ("reference", "target"), strict=True):
            if bool(part.isnan().any()):
                raise ArchitectureError(
                    f"Expected weights to match by but {name!r} of the {whose} holds NaN."
                )
        most = max(float(part[part.isfinite()].abs().max()) if part.isfinite().any() else 0 for part in parts)
        for state, tensor in zip(pair, tensors, strict=True):
            large = 10 * max(most, 1.0)
            state[name] = _bounded(tensor, large)
    return pair


def _bounded(tensor: Tensor, large: float) -> Tensor:
    if tensor.is_complex():
        return torch.complex(_bounded(tensor.real, large), _bounded(tensor.imag, large))
    return tensor.nan_to_num(posinf=large, neginf=-large)
