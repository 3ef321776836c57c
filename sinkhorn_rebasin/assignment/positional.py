"""Signatures of functions that are only called by position."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Positional"]


class _Bound(NamedTuple):
    """Hold arguments as they were given."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def apply_defaults(self) -> None:
        """Do nothing, for all arguments are given."""


class Positional(inspect.Signature):
    """Bind all arguments by position.

    ``torch.autograd.Function.apply`` binds its arguments at every call, and so finds out each time what is known:
    that every argument is given, in order. That costs more than the checks of a small matrix.

    >>> Positional.of(lambda first, second: None).bind(1, 2).args
    (1, 2)
    """

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Positional:
        """Return the signature of a function without defaults."""
        return cls(list(inspect.signature(function).parameters.values()))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Return the arguments of a call.

        As many are given as there are parameters.
        """
        if kwargs or len(args) != len(self.parameters):
            return super().bind(*args, **kwargs)
        return _Bound(args, {})
