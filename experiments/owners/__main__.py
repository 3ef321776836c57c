"""What do networks of clients, whose data stay with them, make together?

    python -m experiments.owners one-round
    python -m experiments.owners rounds --images 5000

Ten clients get the images of MNIST, or of CIFAR-10, by Dirichlet shares (0.5) of every class. Each starts from a seed
of its own, trains on its own images with Lightning, and sends its weights; nothing else leaves it. `one-round` merges
MNIST networks of one hidden layer once, by every method; the table says which data of the server each one uses, and
the server's images are those of no client. `rounds` merges convolutional networks ten times over, and sends the
result back each time. Finished seeds are kept in OUT/finished. Leaves in OUT a picture and a receipt of all that is
finished there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.data import ImageData, load_cifar10, load_digits, load_mnist
from experiments.owners.figures import draw, of_rounds, one_round_table
from experiments.owners.one_round import merged, sent
from experiments.owners.rounds import WAYS, Plan, curve
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import command_line, markdown_table, write_receipt
from sinkhorn_rebasin import Recipe

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every seed that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    (run_one_round if options.experiment == "one-round" else run_rounds)(options)
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=("one-round", "rounds"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=None, help="of a client in a round; 10, or 1 in rounds")
    parser.add_argument("--width", type=int, default=100, help="hidden units of the MNIST network")
    parser.add_argument("--server", type=int, default=1000, help="unlabelled images that the server has")
    parser.add_argument("--steps", type=int, default=0, help="of the soft fit of permutations")
    parser.add_argument("--scale-steps", type=int, default=150, help="of the fit of scales")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=None, help="training images that are shared out")
    parser.add_argument(
        "--digits", action="store_true", help="small images that scikit-learn brings, for a try"
    )
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/owners"))
    options = parser.parse_args(arguments)
    if options.epochs is None:
        options.epochs = 10 if options.experiment == "one-round" else 1
    return options


def run_one_round(options: argparse.Namespace) -> None:
    """Merge the networks of every seed once."""
    recipe = Recipe.many(
        steps=options.steps,
        closing_steps=options.scale_steps,
        evaluate_every=25,
        scale_learning_rate=0.05,
        closing_learning_rate=0.02,
    )
    for seed in range(options.seeds):
        file = options.out / "finished" / f"one-round-{seed}.json"
        if file.is_file():
            continue
        data = load_digits() if options.digits else load_mnist(options.root, options.images)
        got = sent(data, options.clients, seed, options.width, options.epochs, options.server)
        rows = merged(got, recipe)
        console.print(markdown_table(rows))
        write_json(file, {"seed": seed, "rows": rows, **_made_by(options)})


def run_rounds(options: argparse.Namespace) -> None:
    """Merge over several rounds, by every way and seed."""
    data: ImageData | None = None
    for seed in range(options.seeds):
        for number, way in enumerate(WAYS):
            file = options.out / "finished" / f"rounds-{seed}-{number}.json"
            if file.is_file():
                continue
            data = data or _images_of_rounds(options)
            plan = Plan(options.clients, options.rounds, options.epochs, seed=seed)
            found = curve(way, data, plan)
            console.print(f"{way}: " + ", ".join(f"{100 * each:.1f}" for each in found["accuracies"]))
            write_json(file, {"seed": seed, "plan": asdict(plan), **found, **_made_by(options)})


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    finished = options.out / "finished"
    one = [read_json(file) for file in sorted(finished.glob("one-round-*.json"))]
    several = [read_json(file) for file in sorted(finished.glob("rounds-*.json"))]
    metrics: dict[str, Any] = {}
    if one:
        metrics["rows"] = one_round_table(one)
    if several:
        metrics["rounds"] = of_rounds(several)
    for table in metrics.values():
        console.print(markdown_table(table))
    draw(one, several, options.out / "owners.png")
    metrics["all"] = {"one round": one, "rounds": several}
    write_receipt(
        options.out,
        experiment="owners",
        config={
            name: found[0]["config"] for name, found in (("one round", one), ("rounds", several)) if found
        },
        metrics=metrics,
        seeds=sorted({each["seed"] for each in [*one, *several]}),
        commands=list(dict.fromkeys(each["command"] for each in [*one, *several])),
    )


def _made_by(options: argparse.Namespace) -> dict[str, Any]:
    """The command and options of this run, which may be one of several that fill the folder."""
    left_out = ("out", "root", "experiment")
    return {
        "command": command_line(),
        "config": {key: value for key, value in vars(options).items() if key not in left_out},
    }


def _images_of_rounds(options: argparse.Namespace) -> ImageData:
    """CIFAR-10 with a fifth of the test images, which are looked at after every round."""
    data = load_digits() if options.digits else load_cifar10(options.root, options.images)
    count = min(2000, len(data.test_labels))
    return replace(data, test_images=data.test_images[:count], test_labels=data.test_labels[:count])


if __name__ == "__main__":
    main()
