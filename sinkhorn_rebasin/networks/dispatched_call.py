"""One dispatched operation: its arguments by name, and what it returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Call:
    """Hold one dispatched operation.

    It has its arguments by the names of its schema, and what it returned.
    """

    func: Any
    arguments: Mapping[str, Any]
    outputs: Any

    @classmethod
    def bind(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> Call:
        """Name the arguments after the operation's schema.

        The schema's defaults are filled in.
        """
        defaults = _defaults(func)
        given = dict(zip(defaults, args, strict=False))
        return cls(func, {**defaults, **given, **kwargs}, outputs)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument or a default.

        The default is for an operation that has none of this name.
        """
        return self.arguments.get(name, default)

    @property
    def name(self) -> str:
        """Return the operation's name without overload.

        It is spelled as PyTorch spells it.
        """
        return _name(self.func)

    @property
    def output(self) -> Tensor:
        """Return the first or only tensor returned."""
        return self.outputs if isinstance(self.outputs, Tensor) else self.outputs[0]

    @property
    def written(self) -> list[Tensor]:
        """List the arguments that the operation writes to.

        They are tensors. Statistics of norms do not count.
        """
        written = written_names(self.func)
        if not written or "batch_norm" in self.name:
            return []
        # A randomised leaky ReLU draws its slopes in training only.
        written = tuple(name for name in written if name != "noise" or self.get("training"))
        return [self.arguments[n] for n in written if isinstance(self.arguments[n], Tensor)]

    @property
    def tensors(self) -> list[Tensor]:
        """List every tensor among the arguments.

        Those in lists are included.
        """
        found: list[Tensor] = []
        for value in self.arguments.values():
            values = value if isinstance(value, list | tuple) else [value]
            found.extend(item for item in values if isinstance(item, Tensor))
        return found


@cache
def _name(func: Any) -> str:
    return str(func.overloadpacket)


@cache
def _defaults(func: Any) -> dict[str, Any]:
    """Map the names of an operation's arguments to defaults."""
    return {argument.name: argument.default_value for argument in func._schema.arguments}


@cache
def written_names(func: Any) -> tuple[str, ...]:
    """Name the arguments that an operation writes to.

    >>> written_names(torch.ops.aten.add_.Tensor), written_names(torch.ops.aten.add.Tensor)
    (('self',), ())
    """
    arguments = func._schema.arguments
    return tuple(each.name for each in arguments if each.alias_info and each.alias_info.is_write)


@cache
def writes(func: Any) -> bool:
    """Tell whether an operation writes to any argument.

    >>> writes(torch.ops.aten.add_.Tensor), writes(torch.ops.aten.add.Tensor)
    (True, False)
    """
    return bool(func._schema.is_mutable)


def tells_values(call: Call) -> bool:
    """Tell whether Python sees values of tensors.

    What comes out is a number, or a shape that depends on them.
    """
    if torch.Tag.data_dependent_output in call.func.tags:
        return True
    if torch.Tag.dynamic_output_shape not in call.func.tags:
        return False
    if call.func is not torch.ops.aten.index.Tensor:
        return True
    masks = (torch.bool, torch.uint8)
    return any(isinstance(leaf, Tensor) and leaf.dtype in masks for leaf in tree_leaves(call["indices"]))
