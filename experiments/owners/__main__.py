"""What do networks of clients, whose data stay with them, make together?

    python -m experiments.owners one-round
    python -m experiments.owners rounds --images 5000
    python -m experiments.owners halves

Ten clients get the images of MNIST, or of CIFAR-10, by Dirichlet shares (0.5) of every class. Each starts from a seed
of its own, trains on its own images with Lightning, and sends its weights. In `rounds` clients of ours also tell
their loss on some of their images; nothing else leaves them. `one-round` merges MNIST networks of
one hidden layer once, by every method; the table says which data of the server each one uses, and the server's images
are those of no client. `rounds` merges convolutional networks ten times over, and sends the result back each time.
`halves` merges two networks of owners who have 98 % of one half of the classes each, and
trains what comes of it on few labelled images. Finished seeds are kept in OUT/finished, and trained networks in
OUT/networks. Leaves in OUT a picture and a receipt of all that is finished there.
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
from experiments.owners.figures import draw, halves_table, of_rounds, one_round_table
from experiments.owners.halves import halves_rows
from experiments.owners.one_round import merged, sent
from experiments.owners.rounds import WAYS, Plan, Trained, curve
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import command_line, markdown_table, write_receipt
from sinkhorn_rebasin import Recipe

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every seed that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    {"one-round": run_one_round, "rounds": run_rounds, "halves": run_halves}[options.experiment](options)
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=("one-round", "rounds", "halves"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument(
        "--epochs", type=int, default=None, help="of a client: 10, 1 in each of rounds, 2 of halves"
    )
    parser.add_argument("--width", type=int, default=100, help="hidden units of the MNIST network")
    parser.add_argument("--server", type=int, default=1000, help="images that the server has")
    parser.add_argument(
        "--part", type=float, default=0.98, help="that an owner of halves has of its own classes"
    )
    parser.add_argument("--steps", type=int, default=0, help="of the soft fit of permutations")
    parser.add_argument("--scale-steps", type=int, default=150, help="of the fit of scales")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="of rounds")
    parser.add_argument("--images", type=int, default=None, help="training images that are shared out")
    parser.add_argument(
        "--digits", action="store_true", help="small images that scikit-learn brings, for a try"
    )
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/owners"))
    options = parser.parse_args(arguments)
    if options.epochs is None:
        options.epochs = {"one-round": 10, "rounds": 1, "halves": 2}[options.experiment]
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
        name = "-".join(
            str(getattr(options, each)) for each in ("clients", "width", "epochs", "server", "images")
        )
        folder = options.out / "networks" / f"{data.name}-{name}-{seed}"
        got = sent(data, options.clients, seed, options.width, options.epochs, options.server, folder)
        rows = merged(got, recipe)
        console.print(markdown_table(rows))
        write_json(file, {"seed": seed, "rows": rows, **_made_by(options)})


def run_rounds(options: argparse.Namespace) -> None:
    """Merge over several rounds, by every way and seed."""
    data: ImageData | None = None
    for seed in range(options.seeds):
        known: Trained = {}  # clients of one start train on the same average, whatever is served
        for number, way in enumerate(WAYS):
            file = options.out / "finished" / f"rounds-{seed}-{number}.json"
            if file.is_file() or way not in options.ways:
                continue
            data = data or _images_of_rounds(options)
            plan = Plan(options.clients, options.rounds, options.epochs, seed=seed)
            found = curve(way, data, plan, known)
            console.print(f"{way}: " + ", ".join(f"{100 * each:.1f}" for each in found["accuracies"]))
            write_json(file, {"seed": seed, "plan": asdict(plan), **found, **_made_by(options)})


def run_halves(options: argparse.Namespace) -> None:
    """Merge two owners' networks of every seed, and train on."""
    for seed in range(options.seeds):
        file = options.out / "finished" / f"halves-{seed}.json"
        if file.is_file():
            continue
        data = load_digits() if options.digits else load_mnist(options.root, options.images)
        folder = (
            options.out / "networks" / f"{data.name}-{options.part}-{options.epochs}-{options.images}-{seed}"
        )
        rows = halves_rows(data, options.part, seed, options.epochs, options.server, folder)
        console.print(markdown_table(rows))
        write_json(file, {"seed": seed, "rows": rows, **_made_by(options)})


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    finished = options.out / "finished"
    one, several, halves = (
        [read_json(file) for file in sorted(finished.glob(f"{name}-*.json"))]
        for name in ("one-round", "rounds", "halves")
    )
    metrics: dict[str, Any] = {}
    if one:
        metrics["rows"] = one_round_table(one)
    if several:
        metrics["rounds"] = of_rounds(several)
    if halves:
        metrics["halves"] = halves_table(halves)
    for table in metrics.values():
        console.print(markdown_table(table))
    draw(one, several, halves, options.out / "owners.png")
    found = {"one round": one, "rounds": several, "halves": halves}
    metrics["all"] = found
    every = [each for finished_runs in found.values() for each in finished_runs]
    write_receipt(
        options.out,
        experiment="owners",
        config={name: runs[0]["config"] for name, runs in found.items() if runs},
        metrics=metrics,
        seeds=sorted({each["seed"] for each in every}),
        commands=list(dict.fromkeys(each["command"] for each in every)),
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
