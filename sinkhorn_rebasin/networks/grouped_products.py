"""Products of consecutive rows or columns with matrices of their own, of any type."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def grouped_product(
    first: Tensor,
    second: Tensor,
    ends: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Multiply matrices by groups, in any type.

    It does what ``torch.nn.functional.grouped_mm`` does, which has no kernel for float64.

    Args:
        first: rows, or a matrix for each expert.
        second: columns, or a matrix for each expert.
        ends: (experts,) where the rows, columns or terms of each expert end; None for as many of both.
        bias: added to the product.
        out_dtype: of the product; its own type without it.

    Shapes:
        first (n, inputs) and second (experts, inputs, outputs) give (n, outputs): rows have experts.
        first (experts, outputs, inputs) and second (inputs, n) give (outputs, n): columns have experts.
        first (outputs, n) and second (n, inputs) give (experts, outputs, inputs): terms of the sum have experts.
        first (experts, n, inputs) and second (experts, inputs, outputs) give (experts, n, outputs).

    >>> rows, matrices = torch.randn(5, 3), torch.randn(2, 3, 4)
    >>> found = grouped_product(rows, matrices, torch.tensor([2, 5], dtype=torch.int32))
    >>> torch.allclose(found, torch.cat([rows[:2] @ matrices[0], rows[2:] @ matrices[1]]))
    True
    """
    if ends is None:
        product = first @ second
    else:
        bounds = list(pairwise([0, *ends.tolist()]))
        if first.dim() == 3:
            product = _of_rows(second.mT, first.mT, bounds).mT
        elif second.dim() == 3:
            product = _of_rows(first, second, bounds)
        else:
            product = torch.stack([first[:, a:b] @ second[a:b] for a, b in bounds])
    product = product if bias is None else product + bias
    return product if out_dtype is None else product.to(out_dtype)


def _of_rows(rows: Tensor, matrices: Tensor, bounds: list[tuple[int, int]]) -> Tensor:
    parts = [rows[a:b] @ matrix for (a, b), matrix in zip(bounds, matrices, strict=True)]
    rest = rows.new_zeros(len(rows) - bounds[-1][1], matrices.shape[-1])
    return torch.cat([*parts, rest])
