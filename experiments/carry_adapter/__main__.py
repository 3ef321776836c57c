"""A LoRA of rank 4, carried to a base of another seed: against the carried full update, and as it is.

    python -m experiments.carry_adapter

Three pairs of GPT 2x64 (source text to prose) and of ViT 3x64 (colours swapped and inverted). Bases are brought into
canonical form first, in which they compute the same and maps act on them; an adapter of all linear layers is trained
on that. The full update is the adapter merged into its base and carried by the same alignment. Scales are chosen on
held-out samples, for every column alike. Writes the receipt to experiments/results/carry_adapter/.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

import sinkhorn_rebasin as sr
from experiments.carry.bench import measured as loss_and_accuracy
from experiments.carry.setting import load_setting
from experiments.carry.tasks import Labelled, Task, load_tasks
from experiments.models.endpoints import load_or_train
from experiments.reporting.receipts import write_receipt
from sinkhorn_rebasin.front.canonical_pair import canonical_pair

RESULTS = Path("experiments") / "results" / "carry_adapter"
SETTINGS = ("source_text_gpt", "cifar10_vit")
RANK, ALPHA, STEPS, RATE, BATCH = 4, 8, 200, 5e-3, 32
SCALES = (0.25, 0.5, 0.75, 1.0)
LOOKED_AT = 20
Made = Callable[[float], nn.Module]


def trained_adapter(base: nn.Module, samples: Labelled, seed: int) -> sr.Adapter:
    """Train factors of every linear layer of a base."""
    generator = torch.Generator().manual_seed(seed)
    layers = {name: layer for name, layer in base.named_modules() if isinstance(layer, nn.Linear)}
    factors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        start = torch.randn(RANK, layer.in_features, generator=generator) / layer.in_features**0.5
        factors[f"{name}.lora_A.weight"] = start.requires_grad_()
        factors[f"{name}.lora_B.weight"] = torch.zeros(layer.out_features, RANK, requires_grad=True)
    optimizer = torch.optim.Adam(factors.values(), RATE)
    weights = {name: tensor.detach() for name, tensor in base.named_parameters()}
    for _ in range(STEPS):
        picked = torch.randint(len(samples[1]), (BATCH,), generator=generator)
        products = {
            f"{name}.weight": factors[f"{name}.lora_B.weight"] @ factors[f"{name}.lora_A.weight"]
            for name in layers
        }
        state = {
            name: weight + ALPHA / RANK * products[name] if name in products else weight
            for name, weight in weights.items()
        }
        optimizer.zero_grad()
        F.cross_entropy(functional_call(base, state, samples[0][picked]), samples[1][picked]).backward()
        optimizer.step()
    tensors = {key: tensor.detach() for key, tensor in factors.items()}
    return sr.Adapter({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}, tensors)


def best_loss(make: Made, task: Task) -> tuple[float, float]:
    """Return the test loss at the scale that is best on held-out samples, and that scale; 0 is among them."""
    held_out = {scale: loss_and_accuracy(make(scale), task.held_out)[0] for scale in (0.0, *SCALES)}
    scale = min(held_out, key=lambda each: held_out[each])
    return loss_and_accuracy(make(scale), task.test)[0], scale


def measured(
    pair: tuple[nn.Module, nn.Module], seeds: tuple[int, int], tasks: tuple[Task, Task], title: str
) -> list[dict[str, Any]]:
    """Measure one pair by two alignments."""
    inputs, new = tasks[0].train[0][:2], tasks[1]
    spec = sr.discover_symmetry(pair[0], inputs)
    new_base, base, continuous, _ = canonical_pair(pair[1], pair[0], spec, "full", inputs)
    adapter = trained_adapter(base, new.train, seeds[0])
    own = trained_adapter(new_base, new.train, seeds[1])

    def loss(network: nn.Module) -> float:
        return loss_and_accuracy(network, new.test)[0]

    def scaled(scale: float) -> nn.Module:
        tensors = {k: scale * t if "lora_B" in k else t for k, t in adapter.tensors.items()}
        return sr.Adapter(adapter.config, tensors).apply(new_base)

    common = {
        "base": loss(base),
        "base adapted": loss(adapter.apply(base)),
        "new base": loss(new_base),
        "new base with its own adapter": loss(own.apply(new_base)),
        "as it is": best_loss(scaled, new)[0],
    }
    generator = torch.Generator().manual_seed(0)
    seen = [new.train[0][:LOOKED_AT]]
    alignments = {
        "weights": sr.weight_matching(new_base, base, spec, symmetry=continuous, generator=generator),
        f"activations, {LOOKED_AT} samples": sr.activation_matching(
            new_base, base, spec, data=seen, symmetry=continuous, generator=generator
        ),
    }
    rows = []
    for name, alignment in alignments.items():
        figures = carried_figures(adapter, (base, new_base), alignment, inputs, new)
        gap = common["new base"] - common["new base with its own adapter"]
        share = (common["new base"] - figures["carried adapter"]) / gap
        pair_name = f"{seeds[0]} to {seeds[1]}"
        rows.append(
            {
                "setting": title,
                "pair": pair_name,
                "aligned by": name,
                **common,
                **figures,
                "share of the gap": share,
            }
        )
    return rows


def carried_figures(
    adapter: sr.Adapter,
    pair: tuple[nn.Module, nn.Module],
    alignment: sr.Alignment,
    inputs: Tensor,
    task: Task,
) -> dict[str, Any]:
    """Measure an adapter that is carried against the full update that is carried."""
    base, new_base = pair
    whole = sr.carry_adapter(adapter, base, new_base, alignment, 1.0, example_inputs=inputs)
    full = sr.carry(adapter.apply(base), base, new_base, alignment, 1.0, example_inputs=inputs)

    def carried(scale: float) -> nn.Module:
        moved = sr.carry_adapter(adapter, base, new_base, alignment, scale, example_inputs=inputs)
        return moved.apply(new_base)

    first, second = (network.state_dict() for network in (whole.apply(new_base), full.apply(new_base)))
    products = [
        whole.tensors[key.replace("lora_A", "lora_B")] @ factor
        for key, factor in whole.tensors.items()
        if "lora_A" in key
    ]
    loss, scale = best_loss(carried, task)
    return {
        "carried adapter": loss,
        "scale": scale,
        "carried full update": best_loss(lambda scale: full.apply(new_base, scale), task)[0],
        "largest difference of a weight": max(float((first[n] - second[n]).abs().max()) for n in first),
        "rank": max(int(torch.linalg.matrix_rank(each)) for each in products),
    }


def shown(rows: list[Mapping[str, Any]]) -> Table:
    """Return the rows as a table."""
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.carry_adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--endpoints", type=Path, default=Path("runs/carry/endpoints"))
    parser.add_argument("--pairs", type=int, default=3, help="how many of the three pairs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in options.settings:
        setting = load_setting(name)
        tasks = load_tasks(setting, options.root)
        for seeds in setting.seeds[: options.pairs]:
            old, new = (
                load_or_train(options.endpoints, setting.endpoint(seed), tasks[0].data).eval()
                for seed in seeds
            )
            rows += measured((old, new), seeds, tasks, setting.title)
            Console(width=240).print(shown(list(rows)))
    config = {
        "settings": list(options.settings),
        "rank": RANK,
        "alpha": ALPHA,
        "steps": STEPS,
        "rate": RATE,
        "batch": BATCH,
        "scales": list(SCALES),
    }
    write_receipt(
        options.results, experiment="carry_adapter", config=config, metrics={"rows": rows}, seeds=[0, 1, 2]
    )


if __name__ == "__main__":
    main()
