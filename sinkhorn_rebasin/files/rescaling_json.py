"""Rescalings as JSON, and back."""

from __future__ import annotations

from typing import Any

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations.rescaling import RescalingSpec, ScaleSymmetry
from sinkhorn_rebasin.permutations.slots import Slot


def rescaling_to_json(rescaling: RescalingSpec) -> dict[str, Any]:
    """Write rescalings as JSON takes them.

    >>> rescaling_from_json(rescaling_to_json(RescalingSpec(("a",)))) == RescalingSpec(("a",))
    True
    """
    return {
        "groups": list(rescaling.groups),
        "generators": [
            {
                "group": each.group,
                "kind": each.kind,
                "exponents": [[slot.to_json(), exponent] for slot, exponent in each.exponents],
            }
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
                ScaleSymmetry(
                    each["group"],
                    each["kind"],
                    tuple((Slot.from_json(slot), int(exponent)) for slot, exponent in each["exponents"]),
                )
                for each in data["generators"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f"Expected the JSON of rescalings but got {str(data)[:40]!r}: {error!r}.") from error
