"""One place where every rule is found by the name of its operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import RuleError
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
        if "noise" in written and not self.get("training"):
            written.remove("noise")  # a randomised leaky ReLU draws its slopes in training only
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
_NAMESPACES = ("aten", "prims")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these ATen operations."""

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def register_rule(operation: str, acts_as: str | Rule) -> None:
    """Tell how a custom operation acts on units.

    An operation without a rule freezes every unit it meets. Where a custom one does to its tensors what an operation
    of ATen does, as far as units are concerned, name that one; its arguments must be called the same. Otherwise give
    a function of the tape and the :class:`Call` that returns the :class:`Labels` of the output, as those in
    ``symmetry/rules`` are. A wrong rule is a wrong claim: check it with :func:`verify_symmetry`.

    Args:
        operation: the custom operation's full name, ``"namespace::name"``.
        acts_as: an operation of ATen that has a rule, ``"gelu"`` for instance, or a rule.

    Raises:
        RuleError: when the name has no namespace, is ATen's own, or ``acts_as`` names no operation with a rule.

    Example:
        >>> @torch.library.custom_op("doctest::swish", mutates_args=())
        ... def swish(x: Tensor) -> Tensor:
        ...     return x * x.sigmoid()
        >>> register_rule("doctest::swish", "pointwise")
        >>> find_rule(torch.ops.doctest.swish.default) is not None
        True
    """
    namespace, _, name = operation.rpartition("::")
    if not namespace or not name or namespace in _NAMESPACES:
        raise RuleError(
            f"Expected the full name of a custom operation, 'namespace::name', but got {operation!r}."
        )
    known = _rule_named(acts_as) if isinstance(acts_as, str) else acts_as
    if known is None:
        raise RuleError(
            f"Expected the name of an operation of ATen that has a rule but got {acts_as!r}; for an element-wise one "
            f"say 'pointwise'."
        )
    _RULES[operation] = known


def _rule_named(name: str) -> Rule | None:
    """The rule of an operation of ATen, or one that goes by this name itself."""
    packet = getattr(torch.ops.aten, name, None)
    if name in _RULES or packet is None:
        return _RULES.get(name)
    return find_rule(getattr(packet, packet.overloads()[0]))


def find_rule(func: Any) -> Rule | None:
    """The rule of an operation: by name, or the pointwise rule by ATen's own tag, or None.

    An operation in place has the rule of the operation it is the in-place form of. One that is not ATen's has the
    rule that was registered under its full name, whatever it is called like.
    """
    name = func.overloadpacket.__name__
    if func.namespace not in _NAMESPACES:
        return _RULES.get(f"{func.namespace}::{name}")
    named = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
    if named is None and torch.Tag.pointwise in func.tags:
        return _RULES["pointwise"]
    return named


def labels_of_outputs(result: Result, outputs: Sequence[Tensor]) -> list[Labels | None]:
    """Give the labels of each output, None for those that a rule said nothing of.

    Raises:
        NotUnderstoodError: when labels have another shape than their output.
    """
    found = [result] if isinstance(result, Labels) else list(result)[: len(outputs)]
    for labels, tensor in zip(found, outputs, strict=False):
        if labels is not None and labels.shape != tuple(tensor.shape):
            raise NotUnderstoodError(f"its rule knows no output of shape {tuple(tensor.shape)}")
    return [*found, *[None] * (len(outputs) - len(found))]


def axis_of(dim: int, rank: int) -> int:
    """A possibly negative axis as a number from 0 on."""
    return dim % rank if rank else 0
