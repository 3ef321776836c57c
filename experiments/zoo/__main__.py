"""Discovery on whole families of networks: sound or not, groups, parameters covered, seconds, output change.

    python -m experiments.zoo --families torchvision
    python -m experiments.zoo --families timm transformers
    python -m experiments.zoo --families random blocks

Every network is built with random weights; all its groups are permuted at random in float64 and its outputs
compared. ``random`` are networks of random blocks in random order, ``blocks`` each kind of block alone. Needs
``pip install --no-deps torchvision timm`` and ``pip install transformers`` for those families.
Prints a table and leaves a picture and a receipt a family in OUT.
"""

from __future__ import annotations

import argparse
import gc
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.receipts import write_receipt
from experiments.zoo import random_models, timm_models, torchvision_models, transformers_models
from experiments.zoo.entry import Entry
from sinkhorn_rebasin import discover_symmetry, verify_symmetry
from sinkhorn_rebasin.errors import RebasinError

console = Console(width=max(Console().width, 120))
FAMILIES: dict[str, Callable[[], Iterator[Entry]]] = {
    "blocks": random_models.blocks,
    "random": random_models.entries,
    "timm": timm_models.entries,
    "torchvision": torchvision_models.entries,
    "transformers": transformers_models.entries,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network of the families, show and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--only", nargs="+", default=None, help="names of networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for family in options.families:
        chosen = [e for e in FAMILIES[family]() if options.only is None or e.name in options.only]
        rows = [measure(entry) for entry in track(chosen, family, console=console)]
        show(family, rows)
        draw(family, rows, options.out / family)
        config = {"family": family, "only": options.only, "threads": options.threads}
        metrics = {"rows": rows, "summary": summary(rows)}
        write_receipt(options.out / family, experiment="zoo", config=config, metrics=metrics, seeds=[0])


def measure(entry: Entry) -> dict[str, Any]:
    """One network's figures; an error is a figure too."""
    gc.collect()
    torch.manual_seed(0)
    row: dict[str, Any] = {"network": entry.name}
    try:
        model, inputs = entry.make().eval(), entry.inputs()
        row["parameters"] = sum(p.numel() for p in model.parameters())
        started = time.perf_counter()
        spec = discover_symmetry(model, inputs)
        row["seconds"] = time.perf_counter() - started
        row |= {"groups": len(spec.groups), "covered": spec.coverage, "frozen": _reasons(spec.frozen)}
        row["change"] = verify_symmetry(model, spec, inputs)
        row["sound"] = True
    except (
        RebasinError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        NotImplementedError,
        AssertionError,
        IndexError,
        ImportError,
    ) as error:
        row |= {"sound": False, "error": f"{type(error).__name__}: {error}"[:300]}
        row["where"] = traceback.format_exc().splitlines()[-6:-1]
    return row


def _reasons(frozen: Sequence[Any]) -> dict[str, int]:
    """How many axes each reason froze, without those that every network has."""
    counts: dict[str, int] = {}
    for item in frozen:
        if "kernel" not in item.reason and item.reason != "output of the network":
            counts[item.reason] = counts.get(item.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1])[:6])


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the family looks like as a whole."""
    sound = [row for row in rows if row["sound"]]
    covered = sorted(row["covered"] for row in sound)
    seconds = sorted(row["seconds"] for row in sound)
    return {
        "networks": len(rows),
        "sound": len(sound),
        "median_covered": covered[len(covered) // 2] if covered else None,
        "median_seconds": seconds[len(seconds) // 2] if seconds else None,
        "most_seconds": seconds[-1] if seconds else None,
        "largest_change": max((row["change"] for row in sound), default=None),
    }


def show(family: str, rows: Sequence[dict[str, Any]]) -> None:
    """One line a network."""
    table = Table("network", "parameters", "groups", "covered", "seconds", "change", "", title=family)
    for row in rows:
        if row["sound"]:
            change, covered = f"{row['change']:.0e}", f"{row['covered']:.1%}"
            cells = [
                f"{row['parameters']:,}",
                str(row["groups"]),
                covered,
                f"{row['seconds']:.2f}",
                change,
                "",
            ]
        else:
            cells = ["", "", "", "", "", row["error"][:60]]
        table.add_row(row["network"], *cells)
    console.print(table)
    console.print(summary(rows))


def draw(family: str, rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Parameters covered and seconds against the number of parameters."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sound = [row for row in rows if row["sound"]]
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    size = [row["parameters"] for row in sound]
    axes[0].scatter(size, [100 * row["covered"] for row in sound], s=14)
    axes[0].set(
        xscale="log", xlabel="parameters", ylabel="parameters on a permutable axis (%)", ylim=(0, 102)
    )
    axes[1].scatter(size, [row["seconds"] for row in sound], s=14)
    axes[1].set(xscale="log", yscale="log", xlabel="parameters", ylabel="seconds of discovery")
    figure.suptitle(
        f"{family}: {len(sound)} of {len(rows)} networks unchanged by random permutations of all groups"
    )
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "zoo.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
