"""Runs in float64 all the way, whatever types a network casts to inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NARROW = (torch.float32, torch.bfloat16, torch.float16)


class DoublePrecision(TorchDispatchMode):
    """Casts of float64 tensors to narrower types are left out.

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
        if kwargs.get("dtype") in _NARROW and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(args)
        ):
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)
