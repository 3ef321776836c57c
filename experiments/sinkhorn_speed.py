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
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.receipts import write_receipt
from sinkhorn_rebasin.assignment import sinkhorn

RESULTS = Path("experiments") / "results" / "sinkhorn_speed"
WORKER = Path(__file__).parent / "published" / "sinkhorn_operator.py"
SIZES = (64, 256, 512, 1024, 2048)
TOLERANCES = {1.0: 1e-4, 0.3: 1e-4, 0.1: 1e-3}
PUBLISHED_ITERATIONS = 20
LARGEST_TRUTH = 256
RUNS_PER_TURN = 4


class Published:
    """The published operator in a process of its own."""

    def __init__(self, python: str, folder: Path) -> None:
        self._paths = {
            name: str(folder / f"{name}.npy") for name in ("scores", "weights", "matrix", "gradient")
        }
        self._process = subprocess.Popen(
            [python, "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._read()

    def __enter__(self) -> Published:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("Expected an answer of the published operator but its process ended.")
        return json.loads(line)

    def load(self, scores: Tensor, weights: Tensor) -> None:
        np.save(self._paths["scores"], scores.numpy())
        np.save(self._paths["weights"], weights.numpy())

    def run(self, temperature: float) -> dict[str, float]:
        assert self._process.stdin is not None
        request = {**self._paths, "temperature": temperature, "iterations": PUBLISHED_ITERATIONS}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def output(self) -> tuple[Tensor, Tensor]:
        matrix, gradient = (torch.from_numpy(np.load(self._paths[name])) for name in ("matrix", "gradient"))
        return matrix, gradient


def run_ours(scores: Tensor, weights: Tensor, temperature: float) -> tuple[dict[str, float], Tensor, Tensor]:
    """Time one forward and backward pass."""
    leaf = scores.clone().requires_grad_()
    wall, begin = time.perf_counter(), time.process_time()
    result = sinkhorn(leaf, temperature, tolerance=TOLERANCES[temperature])
    middle = time.process_time()
    result.matrix.backward(weights)
    end, wall = time.process_time(), time.perf_counter() - wall
    assert leaf.grad is not None
    times = {
        "forward": middle - begin,
        "backward": end - middle,
        "wall": wall,
        "iterations": result.iterations,
    }
    return times, result.matrix.detach(), leaf.grad


def draw(kind: str, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores and the gradient that comes in from the loss."""
    noise = torch.randn(n, n, generator=generator)
    scores = torch.eye(n) + 0.1 * noise if kind == "identity" else noise
    return scores, torch.randn(n, n, generator=generator)


def true_gradient(scores: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """dL/dX at the fixed point, float64, without any code of the package."""
    log_matrix = scores.double() / temperature
    for _ in range(100_000):
        log_matrix = log_matrix - log_matrix.logsumexp(-1, keepdim=True)
        columns = log_matrix.logsumexp(-2, keepdim=True)
        log_matrix = log_matrix - columns
        if float(columns.abs().max()) < 1e-13:
            break
    matrix, weights = log_matrix.exp(), weights.double()
    eye, n = torch.eye(len(matrix), dtype=torch.float64), len(matrix)
    system = torch.cat([torch.cat([eye, matrix], 1), torch.cat([matrix.T, eye], 1)])[:-1, :-1]
    weighted = matrix * weights
    sums = torch.cat([weighted.sum(1), weighted.sum(0)[:-1]])
    potentials = torch.cat([torch.linalg.solve(system, sums), torch.zeros(1, dtype=torch.float64)])
    return (weighted - matrix * (potentials[:n, None] + potentials[None, n:])) / temperature


def marginal_error(matrix: Tensor) -> float:
    matrix = matrix.double()
    return max(float((matrix.sum(axis) - 1).abs().max()) for axis in (0, 1))


def relative_error(found: Tensor, truth: Tensor) -> float:
    return float(torch.linalg.vector_norm(found.double() - truth) / torch.linalg.vector_norm(truth))


def measure(
    published: Published, kind: str, n: int, temperature: float, turns: int, seed: int
) -> dict[str, Any]:
    """One row: both operators in turn, after one turn of each that is not counted."""
    scores, weights = draw(kind, n, torch.Generator().manual_seed(seed))
    published.load(scores, weights)
    ours, theirs = [], []
    for _ in range(turns + 1):
        runs = [run_ours(scores, weights, temperature) for _ in range(RUNS_PER_TURN)]
        ours.append([times for times, _, _ in runs])
        theirs.append([published.run(temperature) for _ in range(RUNS_PER_TURN)])
    times, matrix, gradient = runs[-1]
    their_matrix, their_gradient = published.output()
    row: dict[str, Any] = {
        "scores": kind,
        "n": n,
        "temperature": temperature,
        "iterations": times["iterations"],
    }
    row |= _summary("ours", ours[1:]) | _summary("published", theirs[1:])
    row["ratio"] = row["published_ms"] / row["ours_ms"]
    row["ratio_first"] = row["published_first_ms"] / row["ours_first_ms"]
    row["ratio_wall"] = row["published_wall_ms"] / row["ours_wall_ms"]
    row |= {"ours_marginal": marginal_error(matrix), "published_marginal": marginal_error(their_matrix)}
    if n <= LARGEST_TRUTH:
        truth = true_gradient(scores, weights, temperature)
        row["ours_gradient"] = relative_error(gradient, truth)
        row["published_gradient"] = relative_error(their_gradient, truth)
    return row


def _summary(name: str, turns: Sequence[Sequence[dict[str, float]]]) -> dict[str, float]:
    """Median milliseconds of the repeated runs and of the first ones, with interquartile ranges."""
    repeated = [run for turn in turns for run in turn[1:]]
    summary = {
        f"{name}_forward_ms": 1e3 * statistics.median(run["forward"] for run in repeated),
        f"{name}_backward_ms": 1e3 * statistics.median(run["backward"] for run in repeated),
        f"{name}_wall_ms": 1e3 * statistics.median(run["wall"] for run in repeated),
    }
    for label, runs in ((name, repeated), (f"{name}_first", [turn[0] for turn in turns])):
        total = [1e3 * (run["forward"] + run["backward"]) for run in runs]
        low, middle, high = statistics.quantiles(total, n=4, method="inclusive")
        summary |= {f"{label}_ms": middle, f"{label}_spread_ms": high - low}
    return summary


def show(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        title="Sinkhorn operator, forward and backward, one thread (median processor ms ± interquartile range)"
    )
    for heading in (
        "scores",
        "n",
        "τ",
        "ours",
        "published",
        "ratio",
        "first run",
        "wall",
        "marginal error",
        "gradient error",
    ):
        table.add_column(heading, justify="left" if heading == "scores" else "right")
    for row in rows:
        gradient = (
            f"{row['ours_gradient']:.1e} | {row['published_gradient']:.1e}" if "ours_gradient" in row else ""
        )
        table.add_row(
            row["scores"],
            str(row["n"]),
            f"{row['temperature']:g}",
            f"{row['ours_ms']:.2f} ± {row['ours_spread_ms']:.2f}",
            f"{row['published_ms']:.2f} ± {row['published_spread_ms']:.2f}",
            f"{row['ratio']:.1f}",
            f"{row['ratio_first']:.1f}",
            f"{row['ratio_wall']:.1f}",
            f"{row['ours_marginal']:.1e} | {row['published_marginal']:.1e}",
            gradient,
        )
    return table


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    titles = {"identity": "identity + 0.1 noise", "noise": "Gaussian noise"}
    for panel, kind in zip(panels, titles, strict=True):
        for color, temperature in zip(("C0", "C1", "C2"), TOLERANCES, strict=True):
            chosen = [r for r in rows if r["scores"] == kind and r["temperature"] == temperature]
            for name, style in (("ours", "o-"), ("published", "s--")):
                label = f"{name}, τ = {temperature:g}"
                sizes, times = [r["n"] for r in chosen], [r[f"{name}_ms"] for r in chosen]
                panel.plot(sizes, times, style, color=color, label=label)
        panel.set(title=titles[kind], xlabel="n", xscale="log", yscale="log")
        panel.set_xticks(sorted({r["n"] for r in rows}), [str(n) for n in sorted({r["n"] for r in rows})])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("forward + backward [processor ms]")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def readable(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases from n = 512 on, as the README shows them: processor milliseconds, forward and backward."""
    return [
        {
            "scores": row["scores"],
            "n": row["n"],
            "τ": row["temperature"],
            "ours, ms": f"{row['ours_ms']:.3g}",
            "published, ms": f"{row['published_ms']:.3g}",
            "ratio": f"{row['ratio']:.3g}",
            "ratio, first run of each turn": f"{row['ratio_first']:.3g}",
            "our marginal error": f"{row['ours_marginal']:.0e}",
            "published marginal error": f"{row['published_marginal']:.0e}",
        }
        for row in rows
        if row["n"] >= 512
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
