"""Which groups turn or mix in whole families of networks: kinds, proof errors and seconds.

    python -m experiments.zoo.continuous --families transformers timm own --out experiments/results/zoo/continuous

Permutations are discovered first, then the continuous groups that contain them; seconds are those of the processor.
The proof error is the largest change of the output at random elements, in float64. Rows are kept in ROWS as they are
made, and networks that have one are passed over; the receipt holds all of them. Of timm, 30 architectures of many
kinds.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from experiments.reporting.receipts import write_receipt
from experiments.zoo import own_models, timm_models, transformers_models
from experiments.zoo.entry import Entry
from experiments.zoo.measurement import FAILURES
from experiments.zoo.sensitivity import redraw
from sinkhorn_rebasin import discover_continuous, discover_symmetry
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec

# fmt: off
TIMM = frozenset((
    "botnet26t_256", "convmixer_768_32", "convnext_atto", "convnextv2_atto", "deit_tiny_patch16_224", "densenet121",
    "edgenext_xx_small", "efficientnet_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fastvit_t8",
    "focalnet_tiny_srf", "ghostnet_050", "lcnet_050", "levit_128s", "mixer_s32_224", "mnasnet_small",
    "mobilenetv2_050", "mobilenetv3_small_050", "mobilevit_xxs", "nf_resnet50", "poolformer_s12", "regnetx_002",
    "repvgg_a0", "resmlp_12_224", "resnet18", "resnetv2_50", "tiny_vit_5m_224", "vgg11", "vit_tiny_patch16_224",
))
# fmt: on
LARGEST_ERROR = 1e-9
console = Console(width=140)


def entries(family: str) -> Iterator[Entry]:
    """The networks of a family."""
    if family == "timm":
        return (entry for entry in timm_models.entries() if entry.name in TIMM)
    return {"own": own_models.entries, "transformers": transformers_models.entries}[family]()


def measured(entry: Entry) -> dict[str, Any]:
    """One network's figures; an error is a figure too."""
    gc.collect()
    torch.manual_seed(0)
    row: dict[str, Any] = {"network": entry.name}
    try:
        model, inputs = redraw(entry.make()).eval(), entry.inputs()
        began = time.process_time()
        spec = discover_symmetry(model, inputs)
        between = time.process_time()
        continuous = discover_continuous(model, spec, inputs)
        ended = time.process_time()
        row |= {"seconds, permutations": between - began, "seconds, continuous": ended - between}
        row |= described(spec, continuous) | {"proof error": continuous.error}
    except FAILURES as error:
        row["error"] = f"{type(error).__name__}: {error}"[:300]
    return row


def described(spec: PermutationSpec, continuous: ContinuousSpec) -> dict[str, Any]:
    """Count groups by kind, and those that are not larger without a reason."""
    kinds = Counter(one.kind + (", X1 = 1" if one.fixes_ones else "") for one in continuous.symmetries)
    linear = {one.group.name for one in continuous.symmetries if one.kind == "linear" and not one.fixes_ones}
    silent = [name for name in spec.names if name not in continuous.reasons and name not in linear]
    return {
        "groups": len(spec.groups),
        **dict(sorted(kinds.items())),
        "gains folded": sum(
            len(one.gains) - len(one.unfoldable) + len(one.less_one) for one in continuous.symmetries
        ),
        "gains not folded": sum(len(one.unfoldable) for one in continuous.symmetries),
        "not larger without a reason": silent,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A family's figures as a whole."""
    run = [row for row in rows if "error" not in row]
    kinds = ("linear", "linear, X1 = 1", "orthogonal", "orthogonal, X1 = 1", "rotary")
    mixing = [row for row in run if any(kind in row for kind in kinds)]
    first, second = (
        [row[f"seconds, {part}"] for row in run] or [0.0] for part in ("permutations", "continuous")
    )
    return {
        "networks": len(rows),
        "run": len(run),
        "proven": sum(row["proof error"] <= LARGEST_ERROR for row in run),
        "largest proof error": max((row["proof error"] for row in run), default=0.0),
        "not larger without a reason": sum(bool(row["not larger without a reason"]) for row in run),
        "with continuous groups": len(mixing),
        **{kind: sum(row.get(kind, 0) for row in run) for kind in kinds},
        "median seconds, permutations": statistics.median(first),
        "median seconds, continuous": statistics.median(second),
        "ratio of medians": statistics.median(second) / max(statistics.median(first), 1e-9),
    }


def rounded(family: str, figures: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    shown = {name: f"{value:.2g}" if isinstance(value, float) else value for name, value in figures.items()}
    return {"family": family, **shown}


def kept(file: Path) -> list[dict[str, Any]]:
    """The rows that were made before."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every network that has no row yet, and keep all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=["own", "timm", "transformers"], required=True)
    parser.add_argument("--only", nargs="*", default=None, help="names of networks")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no network after so many")
    parser.add_argument("--rows", type=Path, default=Path("runs/zoo/continuous"), help="where rows are kept")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo/continuous"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.rows.mkdir(parents=True, exist_ok=True)
    families, began = {}, time.monotonic()
    for family in options.families:
        file = options.rows / f"{family}.jsonl"
        done = {row["network"] for row in kept(file)}
        wanted = [e for e in entries(family) if options.only is None or e.name in options.only]
        for entry in track([e for e in wanted if e.name not in done], family, console=console):
            if time.monotonic() - began > options.seconds:
                break
            with file.open("a") as lines:
                lines.write(json.dumps(measured(entry)) + "\n")
        families[family] = kept(file)
    figures = {family: summary(rows) for family, rows in families.items()}
    metrics = {
        "readme": [rounded(family, each) for family, each in figures.items()],
        "summary": figures,
        "rows": families,
    }
    console.print(metrics["readme"])
    config = {"families": options.families, "only": options.only}
    write_receipt(options.out, experiment="zoo_continuous", config=config, metrics=metrics, seeds=[0])


if __name__ == "__main__":
    main()
