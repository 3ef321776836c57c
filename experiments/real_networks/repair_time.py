"""Seconds of a repair of SpliceAI: all layers in one forward beside one layer after another."""

from __future__ import annotations

import importlib
import time
from typing import Any
from unittest import mock

from torch import Tensor

from experiments.real_networks.spliceai import SpliceAI, bases
from sinkhorn_rebasin import LinearPath, discover_symmetry, repair

WINDOWS, PLACES, RUNS = 4, 2000, 3


def repair_figures(first: SpliceAI, second: SpliceAI) -> dict[str, Any]:
    """Repair the middle between two networks of one architecture in both ways, in turns."""
    spec = discover_symmetry(first, bases(1))
    merged = LinearPath.between(second, first).module_at(0.5)
    data = list(bases(WINDOWS, PLACES).split(1))
    module = importlib.import_module("sinkhorn_rebasin.activations.repair")
    ways = {"layer by layer": lambda *_: None, "one forward": module.corrected_in_one_forward}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    states: dict[str, dict[str, Tensor]] = {}
    for _ in range(RUNS):
        for way, corrected in ways.items():
            with mock.patch.object(module, "corrected_in_one_forward", corrected):
                started = time.perf_counter()
                states[way] = repair(merged, first, second, spec, data).state_dict()
                spent[way].append(time.perf_counter() - started)
    differences = [
        float((one - states["one forward"][name]).abs().max() / one.abs().max().clamp(min=1e-12))
        for name, one in states["layer by layer"].items()
    ]
    return {"seconds of repair": spent, "largest relative difference of repairs": max(differences)}
