"""How soon is the published implementation's own final distance reached, without data?

    python -m experiments.time_to_distance --published-python .venv-published/bin/python

The target is the reference behind a planted permutation, plus noise of a share of each weight's deviation. Both
start at the identity plus a tenth of noise and train the scores at τ = 1 with learning rates 0.1, 1, 10 and 100: the
published one with its l2 loss and AdamW, ours with the ``"inner"`` loss, an eighth of the columns a step, and Adam.
Every few steps the squared distance of the hard-permuted weights is noted, outside of the time. The goal is the least
distance that the published one ends at. What counts are the processor seconds of the steps until the distance is at
most that, each side at the learning rate that is soonest there; and beside it the seconds of the published one at the
rate whose end is the goal, as it passes the goal and leaves it again at others. Beside these, which are steps of
gradient descent alone, stands weight matching, with which :func:`sinkhorn_rebasin.align` begins. One thread. Prints a
table, leaves a picture and a receipt in OUT, in which a network that was measured before stays, with its settings.
Networks whose steps are slow may have fewer rates and steps.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.models import COST_NETWORKS
from experiments.published.client import published_distance
from experiments.reporting.receipts import write_receipt
from experiments.time_to_distance.picture import draw
from sinkhorn_rebasin import SinkhornRebasin, WeightDistance, discover_symmetry, weight_matching
from sinkhorn_rebasin.permutations import permute_state, random_permutations

RATES = (0.1, 1.0, 10.0, 100.0)
State = dict[str, Tensor]
Curve = list[list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show and keep; every network is kept as soon as it is measured."""
    options = parse(arguments)
    torch.set_num_threads(1)
    receipt = options.out / "receipt.json"
    rows = json.loads(receipt.read_text())["metrics"]["rows"] if receipt.is_file() else {}
    rows = {name: figures(row) for name, row in rows.items()}
    for name in options.networks:
        settings = {key: getattr(options, key) for key in ("rates", "steps", "own_steps", "every", "noise")}
        rows[name] = {**measured(name, options, rows.get(name)), "settings": settings}
        write_receipt(
            options.out,
            experiment="time_to_distance",
            config={"threads": 1},
            metrics={"readme": table_of(rows), "rows": rows},
            seeds=[0],
        )
    draw(rows, options.out / "time_to_distance.png")
    show(rows)


def measured(name: str, options: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """Curves of (seconds, step, distance) of both sides, and the times to the published one's best end."""
    reference, target, spec = planted_pair(name, options.noise)
    if options.keep_published and before is not None:
        curves = before["published"]
    else:
        given = COST_NETWORKS[name], reference, target
        steps = {"iterations": options.steps, "every": options.every}
        curves = {
            str(rate): published_distance(options.published_python, *given, lr=rate, **steps)["curve"]
            for rate in options.rates
        }
    ours = {str(rate): own_curve(name, (reference, target), spec, rate, options) for rate in options.rates}
    matched = matching(name, (reference, target), spec)
    return figures({"published": curves, "ours": ours, "matching": matched})


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """Curves with the goal, when each side is there, and how many times sooner ours is."""
    curves = row["published"]
    goal = min(curve[-1][2] for curve in curves.values())
    row = {**row, "goal": goal}
    for side in ("published", "ours"):
        times = {rate: seconds for rate, curve in row[side].items() if (seconds := reached(curve, goal))}
        best = min(
            times, key=times.__getitem__, default=min(row[side], key=lambda rate: row[side][rate][-1][2])
        )
        row |= {f"{side}, rate": best, f"{side}, seconds": times.get(best)}
    own, soonest = row["ours, seconds"], row["published, seconds"]
    ending = min(reached(curve, goal) or math.inf for curve in curves.values() if is_at(curve[-1][2], goal))
    return row | {
        "published, seconds at the rate that ends there": ending,
        "ratio": soonest / own if own else None,
        "ratio to the rate that ends there": ending / own if own else None,
    }


def planted_pair(name: str, noise: float) -> tuple[State, State, Any]:
    """Weights of a reference, of the same permuted and with noise, and the symmetries."""
    torch.manual_seed(0)
    net = COST_NETWORKS[name].build().eval()
    spec = discover_symmetry(net, torch.randn(2, *COST_NETWORKS[name].input_shape[1:]))
    reference = {key: value.detach().clone() for key, value in net.state_dict().items()}
    permuted = permute_state(reference, spec, random_permutations(spec))
    learned = {key for key, _ in net.named_parameters()}
    target = {
        key: value + noise * value.std(correction=0) * torch.randn_like(value) if key in learned else value
        for key, value in permuted.items()
    }
    return reference, target, spec


def own_curve(
    name: str, states: tuple[State, State], spec: Any, rate: float, options: argparse.Namespace
) -> Curve:
    """Our (seconds, step, distance)."""
    pair = [COST_NETWORKS[name].build().eval() for _ in states]
    for net, state in zip(pair, states, strict=True):
        net.load_state_dict(state)
    generator = torch.Generator().manual_seed(1)
    rebasin = SinkhornRebasin(
        *pair, spec=spec, start="identity", noise=0.1, generator=generator, check=False, candidates="all"
    )
    loss = WeightDistance("inner", fraction=0.125, generator=generator)
    optimizer, seconds = torch.optim.Adam(rebasin.parameters(), lr=rate), 0.0
    learned = {key for key, _ in pair[0].named_parameters()}
    curve: Curve = []
    for step in range((options.own_steps or options.steps) + 1):
        if step % options.every == 0:
            curve.append([seconds, step, distance(rebasin, learned)])
        begin = time.process_time()
        rebasin.train()
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()
        seconds += time.process_time() - begin
    return curve


def matching(name: str, states: tuple[State, State], spec: Any) -> dict[str, float]:
    """Seconds of weight matching, and the squared distance that it ends at."""
    reference, target = states
    begin = time.process_time()
    found = weight_matching(reference, target, spec)
    seconds, moved = time.process_time() - begin, found.apply(target)
    learned = [key for key, _ in COST_NETWORKS[name].build().named_parameters()]
    total = sum(float((moved[key] - reference[key]).square().sum()) for key in learned)
    return {"seconds": seconds, "distance": total}


@torch.no_grad()
def distance(rebasin: SinkhornRebasin, learned: set[str]) -> float:
    """Squared distance of the parameters at the hard permutations."""
    rebasin.eval()
    reference, rebased = rebasin.reference_state(), rebasin.rebased_state()
    return sum(float((rebased[name] - reference[name]).square().sum()) for name in learned)


def reached(curve: Curve, goal: float) -> float | None:
    """Seconds until the distance first is at most the goal."""
    return next((seconds for seconds, step, value in curve if step and is_at(value, goal)), None)


def is_at(value: float, goal: float) -> bool:
    """Whether a distance is at most the goal, but for rounding."""
    return value <= goal * (1 + 1e-6)


def table_of(rows: dict[str, Any]) -> list[dict[str, str]]:
    """The table as it is printed and shown in RESULTS.md."""
    table = []
    for name, row in rows.items():
        own = "not reached" if row["ours, seconds"] is None else f"{row['ours, seconds']:.2g}"
        cells = {
            "network": name,
            "squared distance": f"{row['goal']:.4g}",
            "published, s (rate)": f"{row['published, seconds']:.2g} ({float(row['published, rate']):g})",
            "published at the rate that ends there, s": (
                f"{row['published, seconds at the rate that ends there']:.2g}"
            ),
            "ours, s (rate)": f"{own} ({float(row['ours, rate']):g})",
        }
        for title, ratio in (
            ("ratio", "ratio"),
            ("ratio to the latter", "ratio to the rate that ends there"),
        ):
            cells[title] = "" if row[ratio] is None else f"{row[ratio]:.2g}"
        known = row.get("matching", {})
        cells["weight matching, s (its squared distance)"] = (
            f"{known['seconds']:.2g} ({known['distance']:.4g})" if known else ""
        )
        table.append(cells)
    return table


def show(rows: dict[str, Any]) -> None:
    """One line a network."""
    lines = table_of(rows)
    table = Table(*lines[0], title="time to distance")
    for line in lines:
        table.add_row(*line.values())
    Console(width=140).print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.time_to_distance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--published-python", type=Path, required=True, help="see experiments/published")
    parser.add_argument("--networks", nargs="+", choices=list(COST_NETWORKS), default=["MLP 784-512x3-10"])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates of both")
    parser.add_argument("--steps", type=int, default=20, help="of each side, at each learning rate")
    parser.add_argument("--own-steps", type=int, default=None, help="of ours, where they are others")
    parser.add_argument("--keep-published", action="store_true", help="take its curves from the receipt")
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("experiments") / "results" / "time_to_distance")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
