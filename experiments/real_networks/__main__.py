"""Measure networks with the weights that their packages bring: `python -m experiments.real_networks FOLDER`.

FOLDER is that of the package ``spliceai`` (1.3.1), which is read and not imported; h5py must be installed.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from experiments.real_networks.spliceai import SpliceAI, published
from experiments.receipts import write_receipt
from sinkhorn_rebasin import LinearPath, discover_symmetry, repair, verify_symmetry

RESULTS = Path(__file__).parents[1] / "results" / "real_networks"
WINDOWS, PLACES, RUNS = 4, 2000, 3


def main() -> None:
    """Measure discovery, and repair in one forward beside repair layer by layer, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.manual_seed(0)
    networks = [published(folder / "models" / f"spliceai{number}.h5") for number in (1, 2)]
    for network in networks:
        network.context = 0
    write_receipt(
        RESULTS,
        experiment="real_networks",
        config={"windows": WINDOWS, "places": PLACES, "runs": RUNS, "threads": torch.get_num_threads()},
        metrics={"SpliceAI": measured(*networks)},
        seeds=[0],
    )


def bases(windows: int, places: int) -> Tensor:
    """Random strands, (windows, 4, places)."""
    return one_hot(torch.randint(4, (windows, places)), 4).transpose(1, 2).float()


def measured(first: SpliceAI, second: SpliceAI) -> dict[str, Any]:
    """The figures of a pair of networks of one architecture."""
    example = bases(1, 400)
    started = time.perf_counter()
    spec = discover_symmetry(first, example)
    seconds = time.perf_counter() - started
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
    return {
        "covered": spec.coverage,
        "seconds of discovery": seconds,
        "change": verify_symmetry(first, spec, example),
        "seconds of repair": spent,
        "largest relative difference of repairs": max(differences),
    }


if __name__ == "__main__":
    main()
