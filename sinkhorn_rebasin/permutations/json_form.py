"""What the JSON of a spec must look like, checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from sinkhorn_rebasin.errors import SpecError

__all__ = ["MOST_POSITIONS", "check_continuous_json", "check_spec_json"]

MOST_POSITIONS = 2**25
"""Positions that one slot may place: no tensor that fits in memory has an axis as long."""

Expected: TypeAlias = "type | tuple[Any, ...] | list[Any] | Mapping[str, Any] | int"
"""A type, a choice of types, a list of one kind, the fields of an object, or the least whole number."""

_LAYOUT: Mapping[str, Expected] = {
    "blocks": 1,
    "size": 1,
    "offset": 0,
    "block_stride": int,
    "stride": int,
    "outer": 1,
    "outer_stride": int,
    "inner": 1,
    "listed": ([0], type(None)),
}
_GROUP: Mapping[str, Expected] = {"name": str, "size": 1, "blocks": 1, "parent": (str, type(None))}
_SLOT: Mapping[str, Expected] = {"group": str, "tensor": str, "axes": [0], "layout": _LAYOUT}
_SPEC: Mapping[str, Expected] = {
    "groups": [_GROUP],
    "slots": [_SLOT],
    "frozen": [{"tensor": str, "axis": 0, "reason": str, "operation": str, "module": str, "source": str}],
    "buffers": [str],
    "tied": [[str]],
    "ignored": [str],
}
_CONTINUOUS: Mapping[str, Expected] = {
    "symmetries": [
        {
            "group": _GROUP,
            "kind": str,
            "slots": [_SLOT],
            "signs": [int],
            "fixes_ones": bool,
            "gains": [str],
            "shifts": [str],
            "unfoldable": [str],
            "centered": [_SLOT],
            "pairs": [[0]],
            "less_one": [str],
        }
    ],
    "error": float,
}


def check_spec_json(data: Any) -> None:
    """Raise SpecError where a spec's JSON is malformed.

    Each part is checked for its type, and its size for what a spec can have.
    """
    _check(data, _SPEC, "the spec")
    shapes = data["shapes"]
    _check(shapes, dict, "shapes")
    for name, shape in shapes.items():
        _check(shape, [0], f"the shape of {name!r}")
    for number, slot in enumerate(data["slots"]):
        _check_layout(slot["layout"], number)


def check_continuous_json(data: Any) -> None:
    """Raise SpecError where the JSON of continuous symmetries has parts of another type or size than it can."""
    _check(data, _CONTINUOUS, "the continuous spec")
    _check(data["reasons"], dict, "reasons")
    for name, reason in data["reasons"].items():
        _check(reason, str, f"the reason of {name!r}")
    for symmetry in data["symmetries"]:
        for number, slot in enumerate([*symmetry["slots"], *symmetry["centered"]]):
            _check_layout(slot["layout"], number)


def _check_layout(layout: Mapping[str, Any], number: int) -> None:
    """Check what would fill the memory, or be read past its end."""
    count = math.prod(layout.get(part, 1) for part in ("blocks", "size", "outer", "inner"))
    if count > MOST_POSITIONS:
        raise SpecError(
            f"Expected slots[{number}] of the JSON of a spec to place at most {MOST_POSITIONS} positions but got "
            f"{count}."
        )
    if layout.get("listed") is not None and len(layout["listed"]) != count:
        raise SpecError(
            f"Expected slots[{number}] of the JSON of a spec to list {count} positions but got "
            f"{len(layout['listed'])}."
        )


def _check(value: Any, expected: Expected, where: str) -> None:
    """Raise SpecError unless a value has the expected form.

    Fields that are absent, or that nobody knows, are told later.
    """
    if isinstance(expected, Mapping):
        _check(value, dict, where)
        for name, part in expected.items():
            if name in value:
                _check(value[name], part, f"{name!r} of {where}")
    elif isinstance(expected, list):
        _check(value, list, where)
        for number, item in enumerate(value):
            _check(item, expected[0], f"{where}[{number}]")
    elif isinstance(expected, tuple):
        if value is not None or type(None) not in expected:
            _check(value, expected[0], where)
    elif isinstance(expected, int):
        if type(value) is not int or value < expected:
            raise _wrong(value, f"a whole number of at least {expected}", where)
    elif type(value) is not expected:
        raise _wrong(
            value, {int: "a whole number", str: "a text"}.get(expected, f"a {expected.__name__}"), where
        )


def _wrong(value: Any, expected: str, where: str) -> SpecError:
    return SpecError(f"Expected {where} in the JSON of a spec to be {expected} but got {repr(value)[:60]}.")
