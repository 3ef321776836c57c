"""Is a planted permutation found again, by gradient descent on a data-free loss and by weight matching?

    python -m experiments.find_permutation
    python -m experiments.find_permutation --problems all --seeds 10 --published-python .venv-published/bin/python
    python -m experiments.find_permutation --problems nested --methods ours "weight matching"

A randomly initialised network is permuted at random, every group and every group inside a group. "ours" starts the
scores at the identity plus noise (not at weight matching, which would find the answer at once) and trains them with
the l2 distance of the weights alone; it is done at the first step at which the hard permutation is exactly the
planted one. Weight matching, from its own start and from the identity, makes passes until nothing improves and is
right or not. Prints a table and leaves figures, a receipt and the recovered networks of the first seed in OUT.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.planted_problems import FLAT, NESTED, PROBLEMS, SMALL, Problem, plant
from experiments.planted_table import draw, printable, readable, summarise
from experiments.published import PublishedError, published_planted
from experiments.receipts import write_receipt
from sinkhorn_rebasin import SinkhornRebasin, WeightDistance, permute_state, weight_matching
from sinkhorn_rebasin.metrics.functional import permutation_recovery
from sinkhorn_rebasin.permutations import PermutationSpec

console = Console(width=max(Console().width, 110))
METHODS = ("ours", "weight matching", "weight matching, from the identity")


def main(arguments: Sequence[str] | None = None) -> None:
    """Plant, search, show and keep."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for name in options.problems:
        for seed in track(range(options.seeds), name, console=console):
            rows += solve(name, seed, options)
    console.print(printable(rows))
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
    parser.add_argument(
        "--problems", nargs="+", choices=[*PROBLEMS, "small", "all", "nested"], default=["small"]
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["ours"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--published-python", type=Path, default=None, help="see experiments/published")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/find_permutation"))
    options = parser.parse_args(arguments)
    expanded = {"small": SMALL, "all": FLAT, "nested": NESTED}
    options.problems = [name for given in options.problems for name in expanded.get(given, [given])]
    return options


def solve(name: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One problem by every method, the published implementation among them where its environment is given."""
    problem = PROBLEMS[name]
    reference, target, spec, answer = plant(problem, seed)
    rows = []
    for method in options.methods:
        if method == "ours":
            result = ours(problem, reference, target, spec, answer, seed)
        else:
            start = "identity" if method.endswith("identity") else "invariants"
            result = matched(reference, target, spec, answer, seed, start)
        rows.append({"problem": name, "method": method, "seed": seed, **result})
    if seed == 0:
        folder = options.out / "networks"
        folder.mkdir(parents=True, exist_ok=True)
        state = permute_state(target.state_dict(), spec, answer)
        file = folder / f"{name.replace(' ', '_').replace(',', '')}.safetensors"
        save_file({k: v.contiguous().clone() for k, v in state.items()}, file)
    if options.published_python is not None and seed < problem.published_seeds:
        result = published(problem, reference, target, options, seed)
        rows.append({"problem": name, "method": "published", "seed": seed, **result})
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
        start="identity",
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


def matched(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    answer: dict[str, Tensor],
    seed: int,
    start: Any,
) -> dict[str, Any]:
    """Weight matching from one order of the groups; an iteration is one pass over all of them."""
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    alignment = weight_matching(reference, target, spec, generator=generator, start=start)
    seconds = time.perf_counter() - started
    found = dict(alignment.permutations)
    exact = all(torch.equal(found[name], answer[name]) for name in answer)
    return {
        "iteration": len(alignment.objective) if exact else None,
        "seconds": seconds,
        "recovered": float(permutation_recovery(found, answer)),
    }


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


if __name__ == "__main__":
    main()
