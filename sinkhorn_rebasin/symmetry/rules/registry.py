"""Find every rule by the name of its operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.errors import RuleError
from sinkhorn_rebasin.networks.dispatched_call import Call
from sinkhorn_rebasin.symmetry.labels.labelling import Labelling
from sinkhorn_rebasin.symmetry.labels.labels import Labels
from sinkhorn_rebasin.symmetry.labels.outcome import NotUnderstoodError, Result

Interpretation = Callable[[Labelling, Call], Result]


@dataclass(frozen=True)
class Rule:
    """Hold what an operation does to labels.

    Attributes:
        function: gives the labels of the output, from a labelling and the call.
        moves: whether the operation only moves elements, so that units of a class may be apart in its output.
    """

    function: Interpretation
    moves: bool = False


_RULES: dict[str, Rule] = {}
_NAMESPACES = ("aten", "prims")


def rule(*names: str, moves: bool = False) -> Callable[[Interpretation], Interpretation]:
    """Register a function as the rule of these ATen operations."""

    def register(function: Interpretation) -> Interpretation:
        """Enter the function under each name."""
        for name in names:
            _RULES[name] = Rule(function, moves)
        return function

    return register


def register_rule(operation: str, acts_as: str | Interpretation) -> None:
    """Tell how a custom operation acts on units.

    An operation without a rule freezes every unit it meets. Where a custom one does to its tensors what an operation
    of ATen does, as far as units are concerned, name that one; its arguments must be called the same. Otherwise give
    a function of the labelling and the :class:`Call` that returns the :class:`Labels` of the output, as those in
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
    known = _rule_named(acts_as) if isinstance(acts_as, str) else Rule(acts_as)
    if known is None:
        raise RuleError(
            f"Expected the name of an operation of ATen that has a rule but got {acts_as!r}; for an element-wise one "
            f"say 'pointwise'."
        )
    _RULES[operation] = known


def _rule_named(name: str) -> Rule | None:
    """Find the rule of an ATen operation by name."""
    packet = getattr(torch.ops.aten, name, None)
    if name in _RULES or packet is None:
        return _RULES.get(name)
    return find_rule(getattr(packet, packet.overloads()[0]))


def find_rule(func: Any) -> Rule | None:
    """Find the rule of an operation, or return None.

    Note:
        - An operation in place has the rule of its out-of-place form.
        - ATen's own tag finds the pointwise rule.
        - A custom operation has only the rule registered under its full name.
    """
    name = func.overloadpacket.__name__
    if func.namespace not in _NAMESPACES:
        return _RULES.get(f"{func.namespace}::{name}")
    named = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
    if named is None and torch.Tag.pointwise in func.tags:
        return _RULES["pointwise"]
    return named


def labels_of_outputs(result: Result, outputs: Sequence[Tensor]) -> list[Labels | None]:
    """Pair labels with outputs, None where unknown.

    Raises:
        NotUnderstoodError: when labels have another shape than their output.
    """
    labels_given = [result] if isinstance(result, Labels) else list(result)[: len(outputs)]
    for labels, tensor in zip(labels_given, outputs, strict=False):
        if labels is not None and labels.shape != tuple(tensor.shape):
            raise NotUnderstoodError(f"its rule knows no output of shape {tuple(tensor.shape)}")
    return [*labels_given, *[None] * (len(outputs) - len(labels_given))]


def axis_of(dim: int, rank: int) -> int:
    """Count a possibly negative axis from 0 on."""
    return dim % rank if rank else 0
