"""A picture of the networks: the share covered, and the seconds of discovery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """A bar a network of the share covered, and one of the seconds of discovery."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    run = [row for row in rows if "seconds" in row]
    figure, (shares, seconds) = plt.subplots(
        *(1, 2), figsize=(11, 1.4 + 0.26 * len(run)), layout="constrained", sharey=True
    )
    places = range(len(run))
    colors = ["tab:blue" if row["sound"] else "tab:red" for row in run]
    bars = shares.barh(places, [100 * row["covered"] for row in run], color=colors)
    shares.bar_label(bars, [f"{100 * row['covered']:.2f}" for row in run], label_type="center", color="white")
    shares.set_yticks(places, [row["network"] for row in run])
    shares.set(xlabel="parameters on a permutable axis (%)", xlim=(0, 100), ylim=(len(run) - 0.4, -0.6))
    bars = seconds.barh(places, [row["seconds"] for row in run], color="tab:gray")
    seconds.bar_label(bars, [f"{row['seconds']:.1f}" for row in run], padding=3)
    seconds.set(
        xlabel="seconds of discovery", xlim=(0, 1.12 * max((row["seconds"] for row in run), default=1))
    )
    sound = sum(row["sound"] for row in run)
    figure.suptitle(
        f"Published weights: random permutations of all groups leave {sound} of {len(run)} unchanged"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, file)
    plt.close(figure)
