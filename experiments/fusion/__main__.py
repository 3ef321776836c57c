"""Does a fit to both networks beat their mean, and what does alignment before it change?

    python -m experiments.fusion
    python -m experiments.fusion mnist_mlp cifar10_cnn --steps 400 --root ../shared/data

Pairs of networks of different seeds, those of a setting of `experiments/carry/settings`, are fused as they are, and
aligned by weights, by activations and by learning. Every fusion sees the same training images. Learning decides on
held-out images, and nothing looks at the test images. The share of the gap is that of the error of RegMean without
alignment above the error of single networks. Finished pairs are kept in OUT/finished. Leaves in OUT a picture and a
receipt of all that is finished there.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from experiments.carry.setting import load_setting
from experiments.carry.tasks import Task, load_tasks
from experiments.data import InMemoryDataModule
from experiments.fusion.figures import draw, gaps, table
from experiments.models.endpoints import load_or_train
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import markdown_table, write_receipt

BATCH, TEST_BATCH, IMAGES = 250, 500, 1000
FUSIONS: dict[str, Any] = {
    "mean": "mean",
    "Fisher": "fisher",
    "RegMean": "regmean",
    "RegMean++": "regmean++",
    "RegMean++, own targets": partial(sr.regmean_plus_plus, targets="own", biases=True),
}
console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuse every pair that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    for name in options.settings:
        setting = load_setting(name)
        task: Task | None = None
        for seeds in setting.seeds[: options.pairs]:
            file = options.out / "finished" / f"{name}-{seeds[0]}-{seeds[1]}.json"
            if file.is_file():
                continue
            task = task or load_tasks(setting, options.root)[0]
            pair = [load_or_train(options.cache, setting.endpoint(seed), task.data) for seed in seeds]
            rows = fused_pair(pair, task, options.steps)
            title = setting.title.rpartition(", ")[0]
            write_json(file, {"name": name, "setting": title, "seeds": list(seeds), "rows": rows})
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=["mnist_mlp", "cifar10_cnn"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=1000, help="of the soft fit; the closing fit has half of them"
    )
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/fusion"))
    return parser.parse_args(arguments)


def fused_pair(pair: Sequence[nn.Module], task: Task, steps: int) -> list[dict[str, Any]]:
    """Measure both networks, and every fusion after every alignment."""
    images, labels = (each[:IMAGES] for each in task.train)
    data = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    singles = [measured(net, task) for net in pair]
    rows = [
        {
            "alignment": "single networks",
            "fusion": "",
            **{k: sum(s[k] for s in singles) / 2 for k in singles[0]},
        }
    ]
    for name, align in ways(pair, task, data, steps).items():
        began = time.process_time()
        alignment = align()
        seconds = time.process_time() - began
        stays = sr.Alignment(sr.identity_permutations(alignment.spec), alignment.spec)
        many = sr.ManyAlignment((stays, alignment))
        for fusion, way in FUSIONS.items():
            began = time.process_time()
            state = many.merge(pair, fusion=way, data=[data, data])
            spent = time.process_time() - began
            found = measured(with_state(pair[0], state), task)
            row = {"alignment": name, "fusion": fusion, "align_seconds": seconds, "seconds": spent, **found}
            rows.append(row)
            console.print(f"{name}, {fusion}: loss {row['loss']:.3f}, {100 * row['accuracy']:.1f} %")
    return rows


def ways(
    pair: Sequence[nn.Module], task: Task, data: Sequence[tuple[Tensor, Tensor]], steps: int
) -> dict[str, Callable[[], sr.Alignment]]:
    """Return how the second network is brought to the first."""
    spec = sr.discover_symmetry(pair[0], data[0][0][:2])
    module = InMemoryDataModule(task.data, batch_size=BATCH, validation_fraction=0.0)
    held_out = list(zip(*(each.split(BATCH) for each in task.held_out), strict=True))
    recipe = sr.Recipe(steps=steps, cycles=2, closing_steps=steps // 2)
    return {
        "as they are": lambda: sr.Alignment(sr.identity_permutations(spec), spec),
        "weights": lambda: sr.weight_matching(pair[0], pair[1], spec),
        "activations": lambda: sr.activation_matching(pair[0], pair[1], spec, data=data),
        "learned": lambda: (
            sr.align(
                *(pair[0], pair[1], module.train_dataloader(), held_out),
                spec=spec,
                recipe=recipe,
                progress=False,
                trainer={"accelerator": "cpu"},
            ).alignment
        ),
    }


def with_state(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Copy a network with other tensors."""
    twin = copy.deepcopy(network)
    twin.load_state_dict(state)
    return twin.eval()


@torch.no_grad()
def measured(network: nn.Module, task: Task) -> dict[str, float]:
    """Return the test loss and accuracy."""
    loss, right = 0.0, 0
    for images, labels in zip(*(each.split(TEST_BATCH) for each in task.test), strict=True):
        logits = network(images)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
    return {"loss": loss / len(task.test[1]), "accuracy": right / len(task.test[1])}


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    found = [read_json(file) for file in sorted((options.out / "finished").glob("*.json"))]
    lines, closed = table(found), gaps(found)
    console.print(markdown_table(lines))
    console.print(markdown_table(closed))
    draw(found, options.out / "fusion.png")
    seeds = sorted({seed for each in found for seed in each["seeds"]})
    write_receipt(
        options.out,
        experiment="fusion",
        config={"threads": options.threads, "batch_size": BATCH, "images": IMAGES, "steps": options.steps},
        metrics={"rows": lines, "gaps": closed, "all": found},
        seeds=seeds,
    )


if __name__ == "__main__":
    main()
