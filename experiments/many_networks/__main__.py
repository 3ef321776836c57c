"""What is the mean of several networks worth? The same networks, aligned by every method.

    python -m experiments.many_networks
    python -m experiments.many_networks mnist_mlp_64 cifar10_mlp_128 --networks 4 --root ../shared/data

The networks are those of a setting of `experiments/compare_methods/settings`, with the first seeds. Each method
aligns them, their equal mean is measured on test images, and again after REPAIR on training images. `ours` learns
permutations and scales together on training images, of which a tenth decides what is kept. Beside them stand one
network and the mean of all outputs, which costs as many times as there are networks. Finished settings are kept in
OUT/finished. Leaves in OUT a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_rebasin
from experiments.compare_methods.setting import load_data, load_setting
from experiments.data import ImageData, InMemoryDataModule
from experiments.many_networks.figures import draw, table
from experiments.models.endpoints import load_or_train
from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import markdown_table, write_receipt
from sinkhorn_rebasin import ManyAlignment, Recipe, repair

BATCH, TEST_BATCH, REPAIR_IMAGES = 256, 500, 2000
console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge the networks of every setting that is not finished, then show and keep all that is."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    for name in options.settings:
        file = options.out / "finished" / f"{name}-{options.networks}.json"
        if file.is_file():
            continue
        setting = load_setting(name)
        data, _ = load_data(setting, options.root).hold_out(setting.held_out)
        endpoints = [setting.endpoint(seed) for seed in range(options.networks)]
        networks = [load_or_train(options.cache, endpoint, data) for endpoint in endpoints]
        rows = merged(networks, data, options.recipe)
        write_json(file, {"name": name, "setting": setting.title, "networks": options.networks, "rows": rows})
    keep(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", default=["digits_mlp_32"])
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=None, help="of the soft fit; a recipe of one's own")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/many_networks"))
    options = parser.parse_args(arguments)
    changes = {} if options.steps is None else {"steps": options.steps, "closing_steps": options.steps // 2}
    options.recipe = Recipe.many(**changes)
    return options


def merged(networks: Sequence[nn.Module], data: ImageData, recipe: Recipe) -> list[dict[str, Any]]:
    """Measure single networks, their outputs' mean, and their own mean by every method."""
    module = InMemoryDataModule(data, batch_size=BATCH, validation_fraction=0.0)
    x = data.train_images[:2]
    spec = sinkhorn_rebasin.discover_symmetry(networks[0], x)
    singles = [measured(lambda inputs, net=net: net(inputs), data) for net in networks]
    rows: list[dict[str, Any]] = [
        {"method": "one network", **{key: sum(s[key] for s in singles) / len(singles) for key in singles[0]}},
        {"method": "mean of outputs", **measured(lambda x: mean_of_outputs(networks, x), data)},
    ]
    stays = sinkhorn_rebasin.identity_permutations(spec)
    ways: dict[str, Any] = {
        "as they are": lambda: ManyAlignment(
            tuple(sinkhorn_rebasin.Alignment(stays, spec) for _ in networks)
        ),
        "to the first": lambda: sinkhorn_rebasin.match_many(networks, spec, max_rounds=0),
        "MergeMany": lambda: sinkhorn_rebasin.match_many(networks, spec),
        "universe": lambda: sinkhorn_rebasin.match_many(networks, spec, method="universe"),
        "Frank-Wolfe": lambda: sinkhorn_rebasin.match_many(networks, spec, method="frank_wolfe"),
        "ours": lambda: sinkhorn_rebasin.align_many(
            networks, spec, train=module.train_dataloader(), recipe=recipe, progress=False
        ),
    }
    for name, way in ways.items():
        began = time.perf_counter()
        alignment = way()
        seconds = time.perf_counter() - began
        rows.append({"method": name, "seconds": seconds, **of_mean(networks, alignment, data)})
        console.print(f"{name}: test loss {rows[-1]['loss']:.3f}, {100 * rows[-1]['accuracy']:.1f} %")
    return rows


def of_mean(networks: Sequence[nn.Module], alignment: ManyAlignment, data: ImageData) -> dict[str, Any]:
    """Measure the equal mean of aligned networks, before and after REPAIR."""
    states = alignment.apply(networks)
    aligned = [with_state(network, state) for network, state in zip(networks, states, strict=True)]
    mean = with_state(networks[0], alignment.merge(networks))
    batches = list(data.train_images[:REPAIR_IMAGES].split(TEST_BATCH))
    repaired = repair(mean, aligned[0], aligned[1:], alignment.spec, batches)
    after = measured(repaired, data)
    change = max(
        float((a(data.test_images[:200]) - b(data.test_images[:200])).abs().max().detach())
        for a, b in zip(aligned, networks, strict=True)
    )
    return {
        **measured(mean, data),
        "repaired_loss": after["loss"],
        "repaired_accuracy": after["accuracy"],
        "cycle_error": alignment.cycle_error(),
        "function_change": change,
    }


def with_state(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network with other tensors."""
    twin = copy.deepcopy(network)
    twin.load_state_dict(dict(state))
    return twin.eval()


@torch.no_grad()
def measured(network: Any, data: ImageData) -> dict[str, float]:
    """Return the test loss and accuracy."""
    pairs = zip(data.test_images.split(TEST_BATCH), data.test_labels.split(TEST_BATCH), strict=True)
    loss, right = 0.0, 0
    for images, labels in pairs:
        logits = network(images)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
    return {"loss": loss / len(data.test_labels), "accuracy": right / len(data.test_labels)}


def mean_of_outputs(networks: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Return the logarithm of the mean probabilities."""
    return torch.stack([network(images).softmax(1) for network in networks]).mean(0).log()


def keep(options: argparse.Namespace) -> None:
    """Show, draw and write down all that is finished."""
    found = [read_json(file) for file in sorted((options.out / "finished").glob("*.json"))]
    lines = table(found)
    console.print(markdown_table(lines))
    draw(found, options.out / "many_networks.png")
    write_receipt(
        options.out,
        experiment="many_networks",
        config={"threads": options.threads, "batch_size": BATCH, "recipe": repr(options.recipe)},
        metrics={"rows": lines, "all": found},
        seeds=list(range(max(each["networks"] for each in found))),
    )


if __name__ == "__main__":
    main()
