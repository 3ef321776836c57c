"""Random numbers that are constant while a network runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode


class ConstantNoise(DispatchMode):
    """Replace random numbers by constants.

    Dropout keeps everything. Noise is one value everywhere. Inside another context, which is entered with it.
    """

    def __init__(self, context: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self._context = context
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        self._stack.enter_context(self._context())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return outputs
        name = func.overloadpacket.__name__
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(outputs[1])
        return tree_map(lambda leaf: _still(leaf, name), outputs)


def _still(leaf: Any, name: str) -> Any:
    """Fill a drawn tensor with one value.

    Drawn integers and orders stay.
    """
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.fill_(1.0 if name.startswith("bernoulli") else 0.5)
    return leaf
