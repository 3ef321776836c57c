"""Curves of the new task against the base task along scales: what is gained, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.carry.bench import Bench
from experiments.carry.methods import carried, difference, plus
from experiments.reporting.json_files import read_json, write_json
from sinkhorn_rebasin.carrying import ByWeights

SCALES = (0.0, 0.5, 0.75, 1.0)


def curves(folder: Path, bench: Bench, seeds: tuple[int, int]) -> dict[str, list[dict[str, Any]]]:
    """Return points of several ways, from the folder or measured now; nothing is chosen by them."""
    path = curves_path(folder, seeds)
    if path.is_file():
        return dict(read_json(path))
    updates = {
        "weight matching": carried(bench, ByWeights(symmetry="permutation")),
        "ours, no data": carried(bench),
        "ours, base task": carried(bench, None, bench.base_batches()),
        "ours, unlabelled": carried(bench, None, bench.unlabelled()),
    }
    change = difference(bench)
    found = {"as it is": [_point(bench, plus(bench, change, scale), scale) for scale in SCALES]}
    for name, update in updates.items():
        found[name] = [_point(bench, update.apply(bench.pair.new_base, scale), scale) for scale in SCALES]
    write_json(path, found, indent=1)
    return found


def curves_path(folder: Path, seeds: tuple[int, int]) -> Path:
    """Name the file of a pair's points."""
    return folder / "finished" / f"curves-{seeds[0]}-{seeds[1]}.json"


def _point(bench: Bench, network: Any, scale: float) -> dict[str, Any]:
    return {"scale": scale, **bench.figures(network)}
