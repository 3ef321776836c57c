"""Speed and accuracy of the soft permutation against the published operator, one thread each.

    python -m experiments.sinkhorn_speed --peer-python PATH

PATH is the interpreter of an environment with `sinkhorn-rebasin==0.0.2`. Both operators run forward and backward on
the same float32 scores: the published default (identity plus a tenth of Gaussian noise) and plain Gaussian noise.
They take turns within one command. A turn is four runs: the first finds the caches as the other process left them
("first" in the receipt), the other three find the operator's own data there; both are reported, for both operators.
Times are processor time of the one thread, which other work on a shared machine lengthens less than the clock on
the wall; wall time of the repeated runs stands beside it. The published operator makes 20 iterations; ours iterates
to a marginal error of 1e-4 (1e-3 at τ = 0.1). Up to n = 256 both gradients are compared with the derivative at the
converged fixed point in float64, found by plain iterations and the full linear system. Writes the receipt and the
figure to experiments/results/sinkhorn_speed/.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from experiments.reporting.receipts import write_receipt
from experiments.sinkhorn_speed.measurement import RUNS_PER_TURN, measure
from experiments.sinkhorn_speed.operators import PUBLISHED_ITERATIONS, TOLERANCES, Published
from experiments.sinkhorn_speed.table_and_figure import plot, readable, show

RESULTS = Path("experiments") / "results" / "sinkhorn_speed"
SIZES = (64, 256, 512, 1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sinkhorn_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peer-python", required=True, help="interpreter with sinkhorn-rebasin==0.0.2")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--turns", type=int, default=3, help="counted turns per case, of four runs each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder, Published(options.peer_python, Path(folder)) as published:
        for kind in ("identity", "noise"):
            for n in options.sizes:
                for temperature in TOLERANCES:
                    rows.append(measure(published, kind, n, temperature, options.turns, options.seed))
        versions = published.versions
    Console(width=140).print(show(rows))
    config = {
        "sizes": options.sizes,
        "turns": options.turns,
        "runs_per_turn": RUNS_PER_TURN,
        "tolerances": {f"{t:g}": tolerance for t, tolerance in TOLERANCES.items()},
        "published_iterations": PUBLISHED_ITERATIONS,
        "published_versions": versions,
        "threads": 1,
    }
    write_receipt(
        options.results,
        experiment="sinkhorn_speed",
        config=config,
        metrics={"rows": rows, "readme": readable(rows)},
        seeds=[options.seed],
    )
    plot(rows, options.results / "sinkhorn_speed.png")


if __name__ == "__main__":
    main()
