"""Rescalings and continuous symmetries as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.rescaling import RescalingSpec, ScaleSymmetry
from sinkhorn_rebasin.permutations.slots import Group, Slot


def rescaling_to_json(rescaling: RescalingSpec) -> dict[str, Any]:
    """Write rescalings as JSON takes them.

    >>> rescaling_from_json(rescaling_to_json(RescalingSpec(("a",)))) == RescalingSpec(("a",))
    True
    """
    return {
        "groups": list(rescaling.groups),
        "generators": [
            {"group": each.group, "kind": each.kind, "exponents": _powers_to_json(each.exponents)}
            for each in rescaling.generators
        ],
    }


def rescaling_from_json(data: Any) -> RescalingSpec:
    """Read rescalings that :func:`rescaling_to_json` wrote.

    Raises:
        SpecError: it is something else.
    """
    try:
        return RescalingSpec(
            tuple(data["groups"]),
            tuple(
                ScaleSymmetry(each["group"], each["kind"], _powers_from_json(each["exponents"]))
                for each in data["generators"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f"Expected the JSON of rescalings but got {str(data)[:40]!r}: {error!r}.") from error


def continuous_to_json(continuous: ContinuousSpec) -> dict[str, Any]:
    """Write continuous symmetries as JSON takes them.

    >>> continuous_from_json(continuous_to_json(ContinuousSpec())) == ContinuousSpec()
    True
    """
    return {
        "symmetries": [
            {
                **vars(each),
                "group": vars(each.group),
                "exponents": _powers_to_json(each.exponents),
                "centered": [_slot_to_json(slot) for slot in each.centered],
            }
            for each in continuous.symmetries
        ],
        "reasons": dict(continuous.reasons),
        "error": continuous.error,
    }


def continuous_from_json(data: Any) -> ContinuousSpec:
    """Read continuous symmetries that :func:`continuous_to_json` wrote.

    Raises:
        SpecError: it is something else.
    """
    try:
        symmetries = tuple(_symmetry_from_json(each) for each in data["symmetries"])
        return ContinuousSpec(symmetries, dict(data["reasons"]), float(data["error"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(
            f"Expected the JSON of continuous symmetries but got {str(data)[:40]!r}: {error!r}."
        ) from error


def _symmetry_from_json(data: Mapping[str, Any]) -> ContinuousSymmetry:
    read = {
        **data,
        "group": Group(**data["group"]),
        "exponents": _powers_from_json(data["exponents"]),
        "centered": tuple(_slot_from_json(slot) for slot in data["centered"]),
        "gains": tuple(data["gains"]),
        "shifts": tuple(data["shifts"]),
        "pairs": tuple((first, second) for first, second in data["pairs"]),
    }
    return ContinuousSymmetry(**read)


def _powers_to_json(exponents: tuple[tuple[Slot, int], ...]) -> list[Any]:
    return [[_slot_to_json(slot), exponent] for slot, exponent in exponents]


def _powers_from_json(data: Any) -> tuple[tuple[Slot, int], ...]:
    return tuple((_slot_from_json(slot), int(exponent)) for slot, exponent in data)


def _slot_to_json(slot: Slot) -> dict[str, Any]:
    return {**vars(slot), "axes": list(slot.axes), "layout": slot.layout.to_json()}


def _slot_from_json(data: Mapping[str, Any]) -> Slot:
    return Slot(data["group"], data["tensor"], tuple(data["axes"]), Layout.from_json(dict(data["layout"])))
