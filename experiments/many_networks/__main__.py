"""What is the mean of several networks worth? The same networks, aligned by every method.

    python -m experiments.many_networks
    python -m experiments.many_networks mnist_mlp_64 --seeds 0,1,2,3 2,3,4,5 --root ../shared/data
    python -m experiments.many_networks mnist_mlp_512_one_cycle --seeds 0,1,2,3,4 --methods MergeMany universe
    python -m experiments.many_networks cifar10_cnn_16 --seeds 0,1 0,1,2,3 0,1,2,3,4,5,6,7 --out runs/many_counts

The networks are those of a setting of `experiments/compare_methods/settings`, with the seeds of each draw. Each
method aligns them, their equal mean is measured on test images, and again after REPAIR on training images. `ours`
learns permutations and scales together on training images, also in twice the steps; `ours, for REPAIR` is judged
after REPAIR, and `ours, distilled` learns what the networks say together. What they keep is decided on images that no
network saw, where the setting holds some out, else on a tenth of the training images. Beside them stand one network
and the mean of all outputs, which costs as many times as there are networks. Where a setting was measured for several
numbers of networks, a table and a picture show how the mean fares as they grow. Finished rows are kept in
OUT/finished. Leaves in OUT pictures and a receipt of all that is finished there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from experiments.compare_methods.setting import load_data, load_setting
from experiments.many_networks.counts import by_count, draw_by_count
from experiments.many_networks.figures import draw, draw_barriers, table
from experiments.many_networks.measure import BATCH, ENDS, Bench, finished
from experiments.models.endpoints import load_or_train
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import command_line, markdown_table, write_receipt
from sinkhorn_rebasin import Recipe

METHODS = (
    *ENDS,
    *("as they are", "to the first", "MergeMany", "universe", "Frank-Wolfe"),
    *("ours", "ours, twice the steps", "ours, for REPAIR", "ours, distilled"),
)
console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge the networks of every setting and draw that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    for name in options.settings:
        for seeds in options.seeds:
            measure(options, name, seeds)
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=["digits_mlp_32"])
    parser.add_argument("--seeds", nargs="+", type=seeds_of, default=[[0, 1, 2, 3]], help="one list a draw")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=None, help="of the soft fit; a recipe of one's own")
    parser.add_argument("--no-barriers", action="store_true", help="leave out those between every two")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/many_networks"))
    options = parser.parse_args(arguments)
    changes = {} if options.steps is None else {"steps": options.steps, "closing_steps": options.steps // 3}
    options.recipe = Recipe.many(**changes)
    return options


def seeds_of(text: str) -> list[int]:
    """Read the seeds of one draw.

    >>> seeds_of("0,2,5")
    [0, 2, 5]
    """
    return [int(seed) for seed in text.split(",")]


def measure(options: argparse.Namespace, name: str, seeds: Sequence[int]) -> None:
    """Measure what is missing of one setting and draw."""
    file = options.out / "finished" / f"{name}-{'_'.join(map(str, seeds))}.json"
    known = read_json(file) if file.is_file() else {"rows": {}}
    if not set(options.methods) - known["rows"].keys():
        return
    setting = load_setting(name)
    data, held_out = load_data(setting, options.root).hold_out(setting.held_out)
    networks = [load_or_train(options.cache, setting.endpoint(seed), data) for seed in seeds]
    unseen = held_out if setting.held_out else None
    bench = Bench(networks, data, unseen, options.recipe, barriers=not options.no_barriers)
    told = {"name": name, "setting": setting.title, "networks": len(seeds), "seeds": list(seeds)}

    commands = list(dict.fromkeys([*commands_of(known), command_line()]))

    def write(rows: object) -> None:
        """Keep the rows so far."""
        made_by = {"recipe": repr(options.recipe), "commands": commands}
        write_json(file, {**told, **made_by, "rows": rows})

    finished(bench, options.methods, known["rows"], write)


def commands_of(found: Mapping[str, Any]) -> list[str]:
    """Return the commands that made what is finished, where they are known.

    >>> commands_of({"command": "python -m experiments.many_networks"})
    ['python -m experiments.many_networks']
    """
    return list(found.get("commands", [found["command"]] if "command" in found else []))


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    found = [read_json(file) for file in sorted((options.out / "finished").glob("*.json"))]
    lines = table(found, METHODS)
    console.print(markdown_table(lines))
    draw(found, METHODS, options.out / "many_networks.png")
    draw_barriers(found, options.out / "barriers.png")
    counts = by_count(found, METHODS)
    if counts:
        console.print(markdown_table(counts))
        draw_by_count(found, METHODS, options.out / "counts.png")
    write_receipt(
        options.out,
        experiment="many_networks",
        config={"threads": options.threads, "batch_size": BATCH, "recipe": repr(options.recipe)},
        metrics={"rows": lines, **({"counts": counts} if counts else {}), "all": found},
        seeds=sorted({seed for each in found for seed in each["seeds"]}),
        commands=list(dict.fromkeys(command for each in found for command in commands_of(each))),
    )


if __name__ == "__main__":
    main()
