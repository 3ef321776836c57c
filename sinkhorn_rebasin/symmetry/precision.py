"""Runs in float64 all the way, whatever types a network casts to inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NARROW = (torch.float32, torch.bfloat16, torch.float16)
_WIDE = {torch.float64, torch.complex128}


class DoublePrecision(TorchDispatchMode):
    """Casts of float64 and complex128 tensors to narrower types are left out.

    Many networks normalise or attend in float32 on purpose; the rounding of that would hide what verification
    looks for.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see Tape: nothing is compiled in here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        wide = {leaf.dtype for leaf in tree_leaves(args) if isinstance(leaf, Tensor)} & _WIDE
        if wide and kwargs.get("dtype") in _NARROW:
            kwargs["dtype"] = torch.float64
        elif wide and kwargs.get("dtype") == torch.complex64:
            kwargs["dtype"] = torch.complex128
        return func(*args, **kwargs)
