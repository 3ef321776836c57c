"""One place where every rule is found by the name of its operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sinkhorn_rebasin.symmetry.labels import Labels

if TYPE_CHECKING:
    from sinkhorn_rebasin.symmetry.trace import Tape

Result = Labels | Sequence[Labels | None]


class NotUnderstoodError(Exception):
    """Raised by a rule for a use of its operation that it cannot interpret; the labels it touches freeze."""


@dataclass(frozen=True)
class Call:
    """One dispatched operation: its arguments by the names of its schema, and what it returned."""

    func: Any
    arguments: Mapping[str, Any]
    outputs: Any

    @classmethod
    def bind(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> Call:
        """Name the arguments after the operation's schema and fill in its defaults."""
        schema = func._schema.arguments
        given = dict(zip((argument.name for argument in schema), args, strict=False))
        defaults = {argument.name: argument.default_value for argument in schema}
        return cls(func, {**defaults, **given, **kwargs}, outputs)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or a default when the operation has none of this name."""
        return self.arguments.get(name, default)

    @property
    def name(self) -> str:
        """The operation as PyTorch spells it, without the overload."""
        return str(self.func.overloadpacket)

    @property
    def output(self) -> Tensor:
        """The first (or only) tensor returned."""
        return self.outputs if isinstance(self.outputs, Tensor) else self.outputs[0]

    @property
    def written(self) -> list[Tensor]:
        """Tensors among the arguments that the operation writes to; statistics of norms do not count."""
        if "batch_norm" in self.name:
            return []
        written = [a.name for a in self.func._schema.arguments if a.alias_info and a.alias_info.is_write]
        return [self.arguments[n] for n in written if isinstance(self.arguments[n], Tensor)]

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor among the arguments, lists included."""
        found: list[Tensor] = []
        for value in self.arguments.values():
            values = value if isinstance(value, list | tuple) else [value]
            found.extend(item for item in values if isinstance(item, Tensor))
        return found


Rule = Callable[["Tape", Call], Result]

_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these ATen operations."""

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def find_rule(func: Any) -> Rule | None:
    """The rule of an operation: by name, or the pointwise rule by ATen's own tag, or None.

    An operation in place has the rule of the operation it is the in-place form of.
    """
    name = func.overloadpacket.__name__
    named = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
    if named is None and torch.Tag.pointwise in func.tags:
        return _RULES["pointwise"]
    return named


def axis_of(dim: int, rank: int) -> int:
    """A possibly negative axis as a number from 0 on."""
    return dim % rank if rank else 0
