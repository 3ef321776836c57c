"""A LoRA of rank 4 on a small GPT, carried to another seed: against the carried full update, and as it is.

    python -m experiments.carry_adapter

Three pairs of GPT 2x64 on the sources of Python's standard library; the adapter is trained on prose, Python's
reference in words. The full update is the adapter merged into its base and carried by the same alignment. Everything
is at scale 1, and so nothing is chosen on test data. Writes the receipt to experiments/results/carry_adapter/.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

import sinkhorn_rebasin as sr
from experiments.carry.tasks import prose
from experiments.data import ImageData, load_source_text
from experiments.data.source_text import VOCABULARY
from experiments.models.endpoints import EndpointConfig, load_or_train
from experiments.reporting.receipts import write_receipt

RESULTS = Path("experiments") / "results" / "carry_adapter"
ARGUMENTS = {"vocabulary": VOCABULARY, "context": 64, "width": 64, "depth": 2, "heads": 4}
RANK, ALPHA, STEPS, RATE, BATCH = 4, 8, 200, 5e-3, 32
PAIRS = ((0, 1), (0, 2), (1, 2))
WINDOWS = 20


def trained_adapter(base: nn.Module, windows: Tensor, seed: int) -> sr.Adapter:
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
        chosen = windows[torch.randint(len(windows), (BATCH,), generator=generator)]
        products = {
            f"{name}.weight": factors[f"{name}.lora_B.weight"] @ factors[f"{name}.lora_A.weight"]
            for name in layers
        }
        state = {
            name: weight + ALPHA / RANK * products[name] if name in products else weight
            for name, weight in weights.items()
        }
        optimizer.zero_grad()
        F.cross_entropy(functional_call(base, state, chosen[:, :-1]), chosen[:, 1:]).backward()
        optimizer.step()
    tensors = {key: tensor.detach() for key, tensor in factors.items()}
    return sr.Adapter({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}, tensors)


@torch.no_grad()
def loss(network: nn.Module, windows: Tensor) -> float:
    """Return the mean loss over windows."""
    return float(F.cross_entropy(network(windows[:, :-1]), windows[:, 1:]))


def measured(seeds: tuple[int, int], data: ImageData, folder: Path) -> list[dict[str, Any]]:
    """Measure one pair by two alignments."""
    base, new_base = (
        load_or_train(folder, EndpointConfig("gpt", seed, 4, ARGUMENTS, 2e-3, 64), data).eval()
        for seed in seeds
    )
    new = prose()
    train, test = (
        torch.cat([tokens, following[:, -1:]], 1)
        for tokens, following in ((new.train_images, new.train_labels), (new.test_images, new.test_labels))
    )
    test = test[:500]
    adapter, own = (
        trained_adapter(network, train, seed) for network, seed in zip((base, new_base), seeds, strict=True)
    )
    inputs = data.train_images[:2]
    spec = sr.discover_symmetry(base, inputs)
    seen = [train[:WINDOWS, :-1]]
    generator = torch.Generator().manual_seed(0)
    alignments = {
        "weights": sr.weight_matching(new_base, base, spec, generator=generator),
        "activations, 20 windows": sr.activation_matching(
            new_base, base, spec, data=seen, generator=generator
        ),
    }
    common = {
        "base": loss(base, test),
        "base adapted": loss(adapter.apply(base), test),
        "new base": loss(new_base, test),
        "new base with its own adapter": loss(own.apply(new_base), test),
        "adapter as it is": loss(adapter.apply(new_base), test),
    }
    rows = []
    for name, alignment in alignments.items():
        carried = sr.carry_adapter(adapter, base, new_base, alignment, 1.0, example_inputs=inputs)
        full = sr.carry(adapter.apply(base), base, new_base, alignment, 1.0, example_inputs=inputs)
        networks = carried.apply(new_base), full.apply(new_base)
        first, second = (network.state_dict() for network in networks)
        ranks = {len(tensor) for key, tensor in carried.tensors.items() if key.endswith("lora_A.weight")}
        rows.append(
            {
                "pair": f"{seeds[0]} to {seeds[1]}",
                "aligned by": name,
                **common,
                "carried adapter": loss(networks[0], test),
                "carried full update": loss(networks[1], test),
                "largest difference of a weight": max(
                    float((first[n] - second[n]).abs().max()) for n in first
                ),
                "rank": max(ranks),
            }
        )
    return rows


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
    parser.add_argument("--endpoints", type=Path, default=Path("runs") / "carry_adapter")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="how many of the three pairs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_source_text()
    rows = [row for seeds in PAIRS[: options.pairs] for row in measured(seeds, data, options.endpoints)]
    Console(width=200).print(shown(rows))
    config = {
        "arguments": ARGUMENTS,
        "rank": RANK,
        "alpha": ALPHA,
        "steps": STEPS,
        "rate": RATE,
        "batch": BATCH,
    }
    write_receipt(
        options.results, experiment="carry_adapter", config=config, metrics={"rows": rows}, seeds=[0, 1, 2]
    )


if __name__ == "__main__":
    main()
