"""Runs in float64 all the way, whatever types a network casts to inside."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.grouped_products import grouped_product
from sinkhorn_rebasin.networks.value_reads import FROM_PYTHON

ROUNDING_OF_NARROW_TYPES = 1e-4
_NARROW = (torch.float32, torch.bfloat16, torch.float16)
_NARROW_COMPLEX = (torch.complex64, torch.complex32)
_WIDE = {torch.float64, torch.complex128}


class DoublePrecision(DispatchMode):
    """Make every float of an operation a float64.

    Casts to narrower types are left out. Many networks normalise or attend in float32 on purpose, or make memory and
    masks of that type; the rounding of that would hide what verification looks for. In a backward pass nothing is
    changed: the casts there are those that autograd owes to a tensor of a narrow type.

    >>> with DoublePrecision():
    ...     torch.zeros(2).dtype, torch.ones(2, dtype=torch.float64).float().dtype
    (torch.float64, torch.float64)
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype == torch.float64:
            return grouped_product(*args, **kwargs)
        if _in_backward_pass():
            return func(*args, **kwargs)
        if kwargs.get("dtype") is not None and _any_wide(args):
            kwargs = {**kwargs, "dtype": _widened(kwargs["dtype"])}
        outputs = func(*args, **kwargs)
        if _none_is_narrow(outputs):
            return outputs
        is_view = any(returned.alias_info is not None for returned in func._schema.returns)
        if is_view and func not in FROM_PYTHON:
            return outputs
        return tree_map(
            lambda leaf: leaf.to(_widened(leaf.dtype)) if isinstance(leaf, Tensor) else leaf, outputs
        )


def is_wide(network: nn.Module) -> bool:
    """Tell whether a network has weights in double precision.

    >>> is_wide(nn.Linear(2, 1)), is_wide(nn.Linear(2, 1).double())
    (False, True)
    """
    return any(tensor.dtype in _WIDE for tensor in network.parameters())


def precision_of(network: nn.Module) -> AbstractContextManager[Any]:
    """Return a context of double precision.

    A network that is not in double precision runs as it is.
    """
    return DoublePrecision() if is_wide(network) else nullcontext()


def narrow_tolerance(tensors: Iterable[Tensor]) -> float:
    """Return the largest change that passes for rounding.

    It is relative, for the types of some tensors.

    >>> narrow_tolerance([torch.zeros(1)])
    0.0001
    """
    types = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return max([ROUNDING_OF_NARROW_TYPES, *(20 * torch.finfo(dtype).eps for dtype in types)])


def _any_wide(args: tuple[Any, ...]) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.dtype in _WIDE for leaf in tree_leaves(args))


def _none_is_narrow(outputs: Any) -> bool:
    """Tell whether there is nothing to widen.

    What is nested is taken to hold something narrow.
    """
    for part in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
        if isinstance(part, Tensor):
            if part.dtype in _NARROW or part.dtype in _NARROW_COMPLEX:
                return False
        elif isinstance(part, (tuple, list, dict)):
            return False
    return True


def _widened(dtype: torch.dtype) -> torch.dtype:
    if dtype in _NARROW:
        return torch.float64
    return torch.complex128 if dtype in _NARROW_COMPLEX else dtype


def _in_backward_pass() -> bool:
    """Tell whether autograd runs.

    A layer that is computed again in the backward pass does not count.
    """
    return torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()
