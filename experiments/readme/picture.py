"""The picture of the README: the loss along the path between two networks, before and after."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from experiments.compare_methods.methods import PUBLISHED
from experiments.reporting.pictures import save_picture
from experiments.reporting.receipts import read_receipt
from sinkhorn_rebasin import PathEvaluation

SETTINGS = ("mnist_mlp_32", "cifar10_cnn")
LINES = {"naive": "as they are", "weight matching": "weight matching", PUBLISHED: "published", "ours": "ours"}
STYLES = {"naive": ("0.6", "-"), "weight matching": ("tab:blue", "--"), PUBLISHED: ("tab:orange", "-.")}


def draw_lead(results: Path, path: Path) -> None:
    """Draw the first pair of two settings side by side."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SETTINGS), figsize=(8.8, 2.7), layout="constrained")
    for axis, setting in zip(axes, SETTINGS, strict=True):
        metrics = read_receipt(results / "compare_methods" / setting / "receipt.json")["metrics"]
        first = metrics["rows"][0]["seeds"]
        rows = {row["method"]: row for row in metrics["rows"] if row["seeds"] == first}
        for method, name in LINES.items():
            measured = PathEvaluation.from_dict(rows[method]["test_path"])
            color, dashes = STYLES.get(method, ("black", "-"))
            width = 2.2 if method == "ours" else 1.5
            axis.plot(measured.positions, measured.losses, dashes, color=color, linewidth=width, label=name)
        axis.set_title(metrics["title"], fontsize=10)
        axis.set_xlabel("position between the two networks")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("test loss")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    save_picture(figure, path)
    plt.close(figure)
