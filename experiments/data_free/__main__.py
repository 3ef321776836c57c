"""Which data-free loss brings two trained networks closest in equal time?

    python -m experiments.data_free

Two networks are trained on the digits of scikit-learn from different seeds, pair by pair. Scores then start at the
identity plus a tenth of noise, or at weight matching, and are trained by Adam (lr 0.1, τ from 1 to 0.1) for the same
processor time with each loss. What counts is the squared distance of the weights at the hard permutations, and the
loss barrier on held-out digits. Prints a table and leaves a receipt in OUT.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn

from experiments.reporting.receipts import write_receipt
from sinkhorn_rebasin import SinkhornRebasin, WeightDistance, discover_symmetry, weight_matching
from sinkhorn_rebasin.assignment.temperature import geometric

LOSSES = {
    "l2": WeightDistance("l2"),
    "inner": WeightDistance("inner"),
    "inner, 1/4": WeightDistance("inner", fraction=0.25, generator=torch.Generator().manual_seed(0)),
}
STARTS = ("identity", "weight_matching")


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out images and labels."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images).float() / 16, torch.from_numpy(labels).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1400]], y[order[:1400]], x[order[1400:]], y[order[1400:]]


def trained(seed: int, width: int, x: Tensor, y: Tensor) -> nn.Module:
    """A network of two hidden layers after some epochs of Adam."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(40):
        for batch in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval()


def aligned(
    pair: tuple[nn.Module, nn.Module], spec: Any, start: str, loss: WeightDistance, budget: float
) -> Any:
    """The re-basin after so many seconds of processor time, and its steps."""
    generator = torch.Generator().manual_seed(1)
    noise = 0.1 if start == "identity" else 0.0
    rebasin = SinkhornRebasin(*pair, spec=spec, start=start, noise=noise, generator=generator, check=False)
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=0.1)
    schedule, begin, steps, share = geometric(1.0, 0.1), time.process_time(), 0, 0.0
    while share < 1:
        rebasin.temperature.fill_(schedule(share))
        loss.progress = share
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()
        steps, share = steps + 1, (time.process_time() - begin) / budget
    return rebasin.eval(), steps


@torch.no_grad()
def measured(rebasin: SinkhornRebasin, x: Tensor, y: Tensor) -> dict[str, float]:
    """Squared distance of the weights, and the barrier at the midpoint."""
    elements = sum(
        t.numel() for name, t in rebasin.reference_state().items() if name in rebasin.spec.compared
    )
    ends = [float(F.cross_entropy(rebasin(x, at=at), y)) for at in (0.0, 0.5, 1.0)]
    distance = float(WeightDistance("l2")(rebasin)) * elements
    return {"distance": distance, "barrier": ends[1] - (ends[0] + ends[2]) / 2}


def main() -> None:
    """Measure, show and keep."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.data_free",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("experiments") / "results" / "data_free")
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, y, held_out, labels = digits()
    rows: list[dict[str, Any]] = []
    for number in range(options.pairs):
        pair = trained(2 * number, options.width, x, y), trained(2 * number + 1, options.width, x, y)
        spec = discover_symmetry(pair[0], x[:2])
        found = weight_matching(*pair, spec)
        matched = SinkhornRebasin(*pair, spec=spec, start=found, check=False).eval()
        about = {"pair": number, "start": "", "loss": "weight matching alone", "steps": 0}
        rows.append({**about, **measured(matched, held_out, labels)})
        for start in STARTS:
            for name, loss in LOSSES.items():
                rebasin, steps = aligned(pair, spec, start, loss, options.seconds)
                about = {"pair": number, "start": start, "loss": name, "steps": steps}
                rows.append({**about, **measured(rebasin, held_out, labels)})
    show(rows)
    config = {"pairs": options.pairs, "width": options.width, "seconds": options.seconds, "threads": 1}
    seeds = list(range(2 * options.pairs))
    write_receipt(options.out, experiment="data_free", config=config, metrics={"rows": rows}, seeds=seeds)


def show(rows: list[dict[str, Any]]) -> None:
    """Medians over pairs, and every pair's distance."""
    table = Table("start", "loss", "steps", "distance", "barrier", "distances", title="equal processor time")
    for key in dict.fromkeys((row["start"], row["loss"]) for row in rows):
        same = [row for row in rows if (row["start"], row["loss"]) == key]
        middle = {
            name: statistics.median(row[name] for row in same) for name in ("steps", "distance", "barrier")
        }
        every = " ".join(f"{row['distance']:.1f}" for row in same)
        cells = f"{middle['steps']:.0f}", f"{middle['distance']:.2f}", f"{middle['barrier']:.3f}", every
        table.add_row(*key, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
