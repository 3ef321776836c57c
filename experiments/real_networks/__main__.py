"""Measure networks with the weights that their packages bring: `python -m experiments.real_networks`.

Run it with the Python of ``experiments.real_networks.environment``. Each network has a process of its own; one that
cannot be had is named in the receipt with its reason. ``--only SpliceAI`` keeps those whose names start so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from experiments.real_networks.measurement import EXAMPLE, FRESH
from experiments.real_networks.networks import NETWORKS
from experiments.real_networks.picture import draw
from experiments.real_networks.repair_time import PLACES, RUNS, WINDOWS, repair_figures
from experiments.real_networks.spliceai import published_member
from experiments.reporting.receipts import markdown_table, write_receipt
from experiments.zoo.packages_family import Runner

RESULTS = Path(__file__).parents[1] / "results" / "real_networks"
WORKER = "experiments.real_networks.worker"
SECONDS = 300.0


def main() -> None:
    """Measure all networks, then repair of SpliceAI, and write the receipt and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="how names start")
    parser.add_argument("--rows", type=Path, default=Path("runs/real_networks"), help="finished rows, kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runner = Runner(Path(sys.executable), options.rows, SECONDS, WORKER)
    rows = [runner.row(network) for name, network in NETWORKS.items() if name.startswith(options.only)]
    print(markdown_table(rows))
    write_receipt(
        options.out,
        experiment="real_networks",
        config={
            "example": EXAMPLE,
            "fresh": FRESH,
            "repair": {"windows": WINDOWS, "places": PLACES, "runs": RUNS},
        },
        metrics={"networks": rows, "repair of SpliceAI": _repair()},
        seeds=[0],
    )
    draw(rows, options.out / "real_networks.png")


def _repair() -> dict[str, Any]:
    torch.manual_seed(0)
    try:
        return repair_figures(published_member(1), published_member(2))
    except (ImportError, OSError) as error:
        return {"skipped": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
