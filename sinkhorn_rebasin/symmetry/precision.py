"""Runs in float64 all the way, whatever types a network casts to inside."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.symmetry.dispatch import LightDispatchMode

_NARROW = (torch.float32, torch.bfloat16, torch.float16)
_WIDE = {torch.float64, torch.complex128}


class DoublePrecision(LightDispatchMode):
    """Casts of float64 and complex128 tensors to narrower types are left out.

    Many networks normalise or attend in float32 on purpose; the rounding of that would hide what verification
    looks for.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        wide = {leaf.dtype for leaf in tree_leaves(args) if isinstance(leaf, Tensor)} & _WIDE
        if wide and kwargs.get("dtype") in _NARROW:
            kwargs["dtype"] = torch.float64
        elif wide and kwargs.get("dtype") == torch.complex64:
            kwargs["dtype"] = torch.complex128
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype == torch.float64:
            return grouped_product(*args, **kwargs)
        return func(*args, **kwargs)


def grouped_product(
    rows: Tensor,
    matrices: Tensor,
    ends: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Consecutive rows times matrices of their own, as ``torch.nn.functional.grouped_mm``, of any type.

    Shapes:
        rows (n, inputs), matrices (experts, inputs, outputs), ends (experts,): where the rows of each expert end.

    >>> rows, matrices = torch.randn(5, 3), torch.randn(2, 3, 4)
    >>> found = grouped_product(rows, matrices, torch.tensor([2, 5], dtype=torch.int32))
    >>> torch.allclose(found, torch.cat([rows[:2] @ matrices[0], rows[2:] @ matrices[1]]))
    True
    """
    if ends is None or rows.dim() != 2 or matrices.dim() != 3:
        raise NotImplementedError(
            "Expected rows (n, inputs) and matrices (experts, inputs, outputs) with ends."
        )
    bounds = [0, *ends.tolist()]
    parts = [rows[a:b] @ matrix for (a, b), matrix in zip(pairwise(bounds), matrices, strict=True)]
    product = torch.cat([*parts, rows.new_zeros(len(rows) - bounds[-1], matrices.shape[-1])])
    return product if bias is None else product + bias
