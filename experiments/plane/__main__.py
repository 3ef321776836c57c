"""Where do two networks lie, and where does alignment bring one of them?

    python -m experiments.plane digits_mlp
    python -m experiments.plane mnist_cnn --cost

A pair is trained and aligned. The test loss is measured on the plane through the reference, the target and the
aligned target; its grid is kept row by row in OUT/finished. The losses along both segments stand beside. `--cost`
measures instead what a point of a ResNet20 costs on 2,000 images, beside a loop of forwards; 51 x 51 points are
extrapolated from a few. Leaves in OUT a picture and a receipt of all that is finished there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from torch import nn

import sinkhorn_rebasin as sr
from experiments.models.family import Batches, batches_of
from experiments.plane.cost import cost_rows
from experiments.plane.setting import Setting, load_setting
from experiments.reporting.finished import Finished
from experiments.reporting.options import parser_of
from experiments.reporting.pictures import save_picture
from experiments.reporting.receipts import markdown_table, write_receipt
from sinkhorn_rebasin.landscape import Plane, PlaneEvaluation, evaluate_plane

console = Console(width=max(Console().width, 120))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a plane or its cost, then show and keep all that is finished."""
    parser = parser_of(__doc__, "digits_mlp", "runs/plane")
    parser.add_argument("--cost", action="store_true", help="measure seconds of a ResNet20 instead")
    parser.add_argument("--images", type=int, default=2000, help="of a point whose cost is measured")
    parser.add_argument("--points", type=int, default=3, help="of each axis of the larger grid that is timed")
    options = parser.parse_args(arguments)
    if options.cost and options.points < 3:
        parser.error(f"Expected at least 3 points of each axis but got {options.points}.")
    torch.set_num_threads(options.threads)
    finished, setting = Finished(options.out), load_setting(options.setting)
    if options.cost:
        finished.row("cost", lambda: {"rows": cost_rows(options.images, options.points)})
    else:
        finished.row("segments", lambda: drawn(setting, options.root, options.cache, options.out))
    metrics: dict[str, Any] = {}
    for name in ("cost", "segments"):
        for row in finished.all(name):
            metrics[name] = row["rows"]
            console.print(markdown_table(row["rows"]))
    write_receipt(
        options.out,
        experiment="plane",
        config={**asdict(setting), "threads": options.threads},
        metrics=metrics,
        seeds=[0, 1],
    )


def drawn(setting: Setting, root: Path, cache: Path, out: Path) -> dict[str, Any]:
    """Align a pair, measure and draw its plane, and return the losses along both segments."""
    data, held, _ = setting.load(root)
    reference, target = (setting.network(cache, data, seed) for seed in (0, 1))
    count = setting.match_images
    train = batches_of(data.train_images[:count], data.train_labels[:count])
    options: dict[str, Any] = {"recipe": setting.recipe, "progress": False, "trainer": {"accelerator": "cpu"}}
    aligned = sr.align(reference, target, train, held, **options).to_model()
    tests = batches_of(data.test_images[: setting.plane_images], data.test_labels[: setting.plane_images])
    networks = {"reference": reference, "target": target, "aligned target": aligned}
    found = evaluate_plane(
        Plane.through(networks), tests, points=setting.points, keep=out / "finished" / "grid.json"
    )
    draw(found, setting.title, out / "plane.png")
    segments = {"as it is": target, "aligned": aligned}
    return {"rows": [segment_row(name, network, reference, tests) for name, network in segments.items()]}


def segment_row(name: str, target: nn.Module, reference: nn.Module, tests: Batches) -> dict[str, Any]:
    """Return the figures of the segment from a target to the reference."""
    path = sr.evaluate_path((target, reference), tests, points=11)
    return {
        "target": name,
        "test loss at the ends": sum(path.endpoints) / 2,
        "test loss halfway": path.midpoint_loss,
        "barrier": path.barrier,
        "accuracy halfway": path.midpoint_accuracy,
    }


def draw(found: PlaneEvaluation, title: str, path: Path) -> None:
    """Draw the plane."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from sinkhorn_rebasin.plots.landscape import plot_plane

    figure, axes = plt.subplots(figsize=(6.4, 5), layout="constrained")
    plot_plane(found, axes)
    figure.suptitle(f"{title}: test loss", fontsize=10)
    save_picture(figure, path)
    plt.close(figure)


if __name__ == "__main__":
    main()
