"""The table and the picture of curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.reporting.pictures import save_picture

NEVER = float("inf")
WITHIN_A_POINT = 0.01


def table(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a pair and curve: the steps from which it stays connected, and how it was at first and at last.

    >>> checkpoint = {"step": 20, "short": 0.0, "barrier": 0.0, "lowest": 0.9}
    >>> table([{"pair": [0, 1], "curves": {"aligned": [checkpoint]}, "tolerance": 0.003}])[0]["steps until connected"]
    '20'
    """
    lines = []
    for pair in pairs:
        for name, curve in pair["curves"].items():
            accuracy = steps_until(curve, pair["tolerance"], loss=False)
            both = steps_until(curve, pair["tolerance"])
            point = steps_until(curve, WITHIN_A_POINT, loss=False)
            lines.append(
                {
                    "pair": "-".join(map(str, pair["pair"])),
                    "curve": name,
                    "bend trained with": pair["ways"][name]["taken"] if "ways" in pair else "",
                    "lowest accuracy at first": f"{100 * curve[0]['lowest']:.2f}",
                    "steps until within a point": _shown(point, curve),
                    "steps until accuracy stays": _shown(accuracy, curve),
                    "steps until connected": _shown(both, curve),
                    "lowest accuracy at last": f"{100 * curve[-1]['lowest']:.2f}",
                    "barrier at last": f"{curve[-1]['barrier']:.4f}",
                }
            )
    return lines


def ways_tried(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a way to train, with the held-out loss along each pair's curves after the pilot.

    >>> tried = [{"way": "rate 0.1", "held-out loss": 0.5, "barrier": 0.0}]
    >>> ways_tried([{"pair": [0, 1], "ways": {"aligned": {"taken": "rate 0.1", "tried": tried}}}])
    [{'bend trained with': 'rate 0.1', '0-1, aligned': '0.5000'}]
    """
    lines: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        for name, curve in pair.get("ways", {}).items():
            for each in curve["tried"]:
                line = lines.setdefault(each["way"], {"bend trained with": each["way"]})
                line[f"{'-'.join(map(str, pair['pair']))}, {name}"] = f"{each['held-out loss']:.4f}"
    return list(lines.values())


def steps_until(curve: Sequence[Mapping[str, Any]], tolerance: float, loss: bool = True) -> float:
    """Return the step from which a curve stays connected, or infinity.

    Args:
        curve: its checkpoints.
        tolerance: of the accuracy below the worse end.
        loss: ask for no barrier of the loss too.

    >>> curve = [{"step": 0, "short": 0.0, "barrier": 0.1}, {"step": 10, "short": 0.0, "barrier": 0.0}]
    >>> steps_until(curve, 0.003), steps_until(curve, 0.003, loss=False), steps_until(curve[:1], 0.003)
    (10, 0, inf)
    """
    steps = NEVER
    for checkpoint in reversed(curve):
        if checkpoint["short"] > tolerance or (loss and checkpoint["barrier"] > 0):
            break
        steps = checkpoint["step"]
    return steps


def draw(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the lowest accuracy over steps, and the last curve of each kind, of the first pair."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
    for name, curve in pairs[0]["curves"].items():
        steps = [checkpoint["step"] for checkpoint in curve]
        left.plot(steps, [100 * checkpoint["lowest"] for checkpoint in curve], "o-", label=name, markersize=3)
        right.plot(curve[-1]["positions"], curve[-1]["losses"], label=name)
    ends = pairs[0]["curves"].values()
    worse = statistics.fmean(100 * min(c[0]["accuracies"][0], c[0]["accuracies"][-1]) for c in ends)
    left.axhline(worse, color="0.8", zorder=0)
    left.set_xscale("symlog", linthresh=10)
    left.set_xlim(left=-1)
    left.set_xlabel("steps of training the bend, each a training of its own")
    left.set_ylabel("lowest test accuracy on the curve, %")
    right.set_xlabel("from target to reference")
    right.set_ylabel("test loss after the last step")
    figure.suptitle(str(pairs[0].get("setting", "")), fontsize=10)
    left.legend(frameon=False, fontsize=8)
    save_picture(figure, path)
    plt.close(figure)


def _shown(steps: float, curve: Sequence[Mapping[str, Any]]) -> str:
    return f"{steps:g}" if steps < NEVER else f"> {curve[-1]['step']}"
