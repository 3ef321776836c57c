"""One network's figures, and a family's."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from experiments.zoo.entry import Entry
from experiments.zoo.exceptions import exceptions
from experiments.zoo.fresh_inputs import change_on_fresh_inputs
from experiments.zoo.sensitivity import effect_of_a_wrong_permutation, redraw
from sinkhorn_rebasin import discover_symmetry, verify_symmetry
from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.permutations import PermutationSpec

SOUND = 1e-9
# For networks that round to single precision themselves.
SOUND_IN_SINGLE_PRECISION = 1e-5
WELL_COVERED = 0.99
# verify_symmetry's, then those on fresh inputs: of the network itself, and of one with other weights and buffers.
CHANGES = ("change", "change on fresh inputs", "change of another network")
# What building or running a stranger's network may raise.
FAILURES = (
    RebasinError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    AssertionError,
    ImportError,
)


def measure(entry: Entry) -> dict[str, Any]:
    """One network's figures; an error is a figure too."""
    gc.collect()
    torch.manual_seed(0)
    row: dict[str, Any] = {"network": entry.name}
    try:
        model, inputs = redraw(entry.make()).eval(), entry.inputs()
        before = _weights(model) if entry.fresh is not None else {}
        row["parameters"] = sum(p.numel() for p in model.parameters())
        started = time.perf_counter()
        spec = discover_symmetry(model, inputs)
        row["seconds"] = time.perf_counter() - started
        row |= {"groups": len(spec.groups), "covered": spec.coverage}
        if spec.coverage < WELL_COVERED:
            row["exceptions"] = exceptions(spec)
        if entry.human is not None:
            row["as a human"] = entry.human(spec)
        limit = _check_on_fresh_inputs(entry, model, spec, row)
        row["change"] = verify_symmetry(model, spec, inputs)
        row["change of a wrong one"] = effect_of_a_wrong_permutation(model, spec, inputs)
        row["sound"] = all(row.get(name, 0.0) <= limit for name in CHANGES)
        if changed := [name for name, old in before.items() if not torch.equal(old, _weights(model)[name])]:
            row |= {"sound": False, "error": f"the caller's {', '.join(changed)[:200]} changed"}
    except FAILURES as error:
        row |= {"sound": False, "error": f"{type(error).__name__}: {error}"[:300]}
        row["where"] = traceback.format_exc().splitlines()[-6:-1]
    return row


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }


def _check_on_fresh_inputs(
    entry: Entry, model: nn.Module, spec: PermutationSpec, row: dict[str, Any]
) -> float:
    """Check the network itself and another one of its architecture, and return which change is round-off."""
    if entry.fresh is None:
        return SOUND
    precisions = set()
    for seed, name in enumerate(CHANGES[1:]):
        row[name], precision = change_on_fresh_inputs(
            model, lambda: redraw(entry.make()), spec, entry.fresh, seed
        )
        precisions.add(str(precision).removeprefix("torch."))
    row["precision"] = min(precisions)
    return SOUND if precisions == {"float64"} else SOUND_IN_SINGLE_PRECISION


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the family looks like as a whole; networks whose package is not there do not count."""
    rows = [row for row in rows if "skipped" not in row]
    run = [row for row in rows if "change of a wrong one" in row]
    covered = sorted(row["covered"] for row in run)
    seconds = sorted(row["seconds"] for row in run)
    figures = {
        "networks": len(rows),
        "sound": sum(row["sound"] for row in rows),
        "median_covered": covered[len(covered) // 2] if covered else None,
        "well_covered": sum(share >= WELL_COVERED for share in covered),
        "median_seconds": seconds[len(seconds) // 2] if seconds else None,
        "most_seconds": seconds[-1] if seconds else None,
        "largest_change": max((row["change"] for row in run), default=None),
    }
    figures["least_effect"] = min((row["change of a wrong one"] for row in run), default=None)
    compared = [row["as a human"] for row in rows if row.get("as a human") is not None]
    return figures | ({"compared": len(compared), "as_a_human": sum(compared)} if compared else {})
