"""Is a planted permutation found again by gradient descent on a data-free loss?

    python -m experiments.find_permutation
    python -m experiments.find_permutation --problems all --seeds 10 --published-python .venv-published/bin/python

A randomly initialised network is permuted at random; the scores start at the identity plus noise (not at weight
matching, which would find the answer at once) and the l2 distance of the weights alone trains them. A problem is
solved at the first step at which the hard permutation is exactly the planted one. Prints a table and leaves
figures, a receipt and the recovered networks of the first seed in OUT.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.models import Architecture
from experiments.published import PublishedError, published_planted
from experiments.receipts import write_receipt
from sinkhorn_rebasin import (
    SinkhornRebasin,
    WeightDistance,
    discover_symmetry,
    permute_state,
    random_permutations,
)
from sinkhorn_rebasin.metrics.functional import permutation_recovery
from sinkhorn_rebasin.permutations import PermutationSpec, inverse
from sinkhorn_rebasin.plots import Bar, plot_barriers

console = Console(width=max(Console().width, 110))


@dataclass(frozen=True)
class Problem:
    """A network to permute, and how the scores are trained: wider groups want longer steps.

    A step has to lift the right score above those of all n - 1 wrong ones through exp(X/τ), so the learning
    rate grows with the width. Momentum would carry on what deep layers learned while their neighbours were
    still unknown, so there is none. The published implementation gets the best of the learning rates 0.1, 1, 10 and
    100 tried on it, and on the large networks fewer seeds.
    """

    architecture: Architecture
    learning_rate: float
    iterations: int
    published_learning_rate: float
    published_seeds: int = 10


def _tanh(depth: int) -> Problem:
    arguments = {"inputs": 10, "widths": [10] * depth, "activation": "tanh"}
    return Problem(Architecture("mlp", (2, 10), arguments), 1.0, 100, 0.1)


PROBLEMS = {
    "tanh MLP 2x10": _tanh(2),
    "tanh MLP 4x10": _tanh(4),
    "tanh MLP 8x10": _tanh(8),
    "tanh MLP 16x10": _tanh(16),
    "MLP 784-512x3-10": Problem(
        Architecture("mlp", (2, 784), {"inputs": 784, "widths": [512] * 3}), 100.0, 40, 10.0, 3
    ),
    "VGG11-BN": Problem(
        Architecture("vgg", (2, 3, 32, 32), {"depth": 11, "batch_norm": True, "head": [512, 512]}),
        100.0,
        40,
        100.0,
        3,
    ),
    "ResNet18": Problem(Architecture("resnet18", (2, 3, 32, 32)), 100.0, 40, 100.0, 3),
}
SMALL = [name for name in PROBLEMS if name.startswith("tanh")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Plant, search, show and keep."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for name in options.problems:
        for seed in track(range(options.seeds), name, console=console):
            rows += solve(name, seed, options)
    print_table(rows)
    draw(rows, options.out)
    config = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    write_receipt(
        options.out,
        experiment="find_permutation",
        config={**config, "settings": {name: asdict(PROBLEMS[name]) for name in options.problems}},
        metrics={"rows": rows, "table": summarise(rows), "readme": readable(summarise(rows))},
        seeds=list(range(options.seeds)),
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; by default the four small problems with ten seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=[*PROBLEMS, "small", "all"], default=["small"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--published-python", type=Path, default=None, help="see experiments/published")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/find_permutation"))
    options = parser.parse_args(arguments)
    expanded = {"small": SMALL, "all": list(PROBLEMS)}
    options.problems = [name for given in options.problems for name in expanded.get(given, [given])]
    return options


def plant(problem: Problem, seed: int) -> tuple[nn.Module, nn.Module, PermutationSpec, dict[str, Tensor]]:
    """A network, its permuted twin, the symmetries, and the permutations that undo the planted ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference, target = problem.architecture.build().eval(), problem.architecture.build().eval()
        spec = discover_symmetry(reference, torch.randn(problem.architecture.input_shape))
        planted = random_permutations(spec)
    target.load_state_dict(permute_state(reference.state_dict(), spec, planted))
    return reference, target, spec, inverse(spec, planted)


def solve(name: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One problem, ours and (where its environment is given) the published implementation's answer."""
    problem = PROBLEMS[name]
    reference, target, spec, answer = plant(problem, seed)
    rows = [
        {
            "problem": name,
            "method": "ours",
            "seed": seed,
            **ours(problem, reference, target, spec, answer, seed),
        }
    ]
    if seed == 0:
        folder = options.out / "networks"
        folder.mkdir(parents=True, exist_ok=True)
        state = permute_state(target.state_dict(), spec, answer)
        save_file(
            {k: v.contiguous() for k, v in state.items()}, folder / f"{name.replace(' ', '_')}.safetensors"
        )
    if options.published_python is not None and seed < problem.published_seeds:
        rows.append(
            {
                "problem": name,
                "method": "published",
                "seed": seed,
                **published(problem, reference, target, options, seed),
            }
        )
    return rows


def ours(
    problem: Problem,
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    answer: dict[str, Tensor],
    seed: int,
) -> dict[str, Any]:
    """Train the scores until the hard permutation is the planted one; the time includes that comparison."""
    rebasin = SinkhornRebasin(
        reference,
        target,
        spec=spec,
        init="identity",
        noise=0.1,
        tolerance=1e-3,
        check=False,
        generator=torch.Generator().manual_seed(seed),
    )
    loss = WeightDistance("l2")
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=problem.learning_rate, betas=(0.0, 0.9))
    started = time.perf_counter()
    found = rebasin.hard_permutations()
    for iteration in range(1, problem.iterations + 1):
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()
        found = rebasin.hard_permutations()
        if all(torch.equal(found[name], answer[name]) for name in answer):
            return {"iteration": iteration, "seconds": time.perf_counter() - started, "recovered": 1.0}
    seconds, recovered = time.perf_counter() - started, float(permutation_recovery(found, answer))
    return {"iteration": None, "seconds": seconds, "recovered": recovered}


def published(
    problem: Problem, reference: nn.Module, target: nn.Module, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """The published implementation on the same pair, from its own start."""
    try:
        result = published_planted(
            options.published_python,
            problem.architecture,
            reference.state_dict(),
            target.state_dict(),
            iterations=problem.iterations,
            lr=problem.published_learning_rate,
            seed=seed,
            threads=options.threads,
        )
    except PublishedError as error:
        return {"iteration": None, "seconds": None, "error": str(error)[:200]}
    return {"iteration": result["iteration"], "seconds": result["seconds"], "error": result["error"]}


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many seeds were solved, and the median and range of iterations and seconds where they were."""
    table = []
    for problem, method in dict.fromkeys((row["problem"], row["method"]) for row in rows):
        chosen = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
        solved = [row for row in chosen if row["iteration"] is not None]
        entry: dict[str, Any] = {
            "problem": problem,
            "method": method,
            "seeds": len(chosen),
            "recovered": len(solved),
        }
        for key in ("iteration", "seconds"):
            values = [row[key] for row in solved]
            entry[f"median_{key}"] = statistics.median(values) if values else None
            entry[f"least_{key}"], entry[f"most_{key}"] = (
                (min(values), max(values)) if values else (None, None)
            )
        table.append(entry)
    return table


def readable(table: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The table as it is printed and shown in the README."""
    shown = []
    for entry in table:
        cells = {
            "problem": entry["problem"],
            "method": entry["method"],
            "recovered": f"{entry['recovered']} of {entry['seeds']}",
            "iterations (median, range)": "",
            "seconds (median, range)": "",
        }
        if entry["recovered"]:
            low, high = entry["least_iteration"], entry["most_iteration"]
            cells["iterations (median, range)"] = f"{entry['median_iteration']:g} ({low}-{high})"
            low, high = entry["least_seconds"], entry["most_seconds"]
            cells["seconds (median, range)"] = f"{entry['median_seconds']:.2f} ({low:.2f}-{high:.2f})"
        shown.append(cells)
    return shown


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line a problem and method."""
    lines = readable(summarise(rows))
    table = Table(*lines[0], title="planted permutation, data-free l2 loss")
    for line in lines:
        table.add_row(*line.values())
    console.print(table)


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Iterations and seconds to the planted permutation."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(15, 5.5))
    for ax, key, label in zip(axes, ("iteration", "seconds"), ("iterations", "seconds"), strict=True):
        bars = [
            Bar(e["problem"], e["method"], e[f"median_{key}"], e[f"least_{key}"], e[f"most_{key}"])
            for e in summarise(rows)
            if e[f"median_{key}"] is not None
        ]
        if bars:
            plot_barriers(bars, ax, log=True)
        ax.set_ylabel(f"{label} until recovered")
        ax.tick_params(axis="x", rotation=30)
    figure.suptitle("Planted permutation, data-free l2 loss: median and range over seeds")
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "planted.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
