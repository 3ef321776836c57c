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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file

from experiments.find_permutation.methods import matched, ours, published
from experiments.find_permutation.problems import FLAT, NESTED, PROBLEMS, SMALL, plant
from experiments.find_permutation.table import draw, printable, readable, summarise
from experiments.reporting.receipts import write_receipt
from sinkhorn_rebasin import permute_state

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


if __name__ == "__main__":
    main()
