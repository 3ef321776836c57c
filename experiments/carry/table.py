"""Tables of rows: means over pairs, and the share of the gap that is closed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.carry.methods import METHODS

FLOOR, ROOF = "new base", "fine-tuned on all labels"


def with_shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    r"""Add what of the gap between the new base and its own fine-tune is closed, pair by pair.

    .. math:: \frac{\ell_{new} - \ell}{\ell_{new} - \ell_{own}}

    Example:
        >>> def row(method, loss):
        ...     return {"method": method, "seeds": [0, 1], "new_loss": loss, "new_accuracy": -loss}
        >>> rows = with_shares([row("new base", 2.0), row("fine-tuned on all labels", 1.0), row("as it is", 1.5)])
        >>> rows[2]["share_of_loss"]
        0.5
    """
    ends = {(row["method"], *row["seeds"], row.get("wide", False)): row for row in rows}
    shared = []
    for row in rows:
        low, high = (ends[(name, *row["seeds"], row.get("wide", False))] for name in (FLOOR, ROOF))
        shares = {
            f"share_of_{kind}": (low[f"new_{kind}"] - row[f"new_{kind}"])
            / (low[f"new_{kind}"] - high[f"new_{kind}"])
            for kind in ("loss", "accuracy")
        }
        shared.append({**row, **shares})
    return shared


def readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a method: means over pairs."""
    table = []
    for name, wide in dict.fromkeys((row["method"], row.get("wide", False)) for row in rows):
        found = [row for row in rows if row["method"] == name and row.get("wide", False) == wide]

        def mean(key: str, found: Sequence[Mapping[str, Any]] = found) -> float:
            return statistics.mean(row[key] for row in found)

        method = METHODS.get(name)
        table.append(
            {
                "method": f"{name}, wider" if wide else name,
                "looks at": "" if method is None else method.data,
                "pairs": len(found),
                "loss": f"{mean('new_loss'):.3f}",
                "accuracy": f"{100 * mean('new_accuracy'):.1f} %",
                "share, loss": f"{mean('share_of_loss'):.2f}",
                "share, accuracy": f"{mean('share_of_accuracy'):.2f}",
                "base task, loss": f"{mean('base_loss'):.3f}",
                "base task, accuracy": f"{100 * mean('base_accuracy'):.1f} %",
            }
        )
    return table


def lead(rows: Sequence[Mapping[str, Any]], title: str) -> dict[str, Any]:
    """Return the shares of the loss side by side: best peer, ours without and with data, and three networks.

    The best peer is the best on the test. Ours are one row each, whatever the others of ours give.
    """
    shares: dict[str, list[float]] = {}
    for row in rows:
        if not row.get("wide", False):
            shares.setdefault(row["method"], []).append(row["share_of_loss"])
    means = {name: statistics.mean(values) for name, values in shares.items() if name in METHODS}

    def top(names: Sequence[str]) -> str:
        known = {name: means[name] for name in names if name in means}
        name = max(known, key=lambda each: known[each])
        return f"{known[name]:.2f} ({name})"

    most = max(len(values) for values in shares.values())

    def shown(name: str) -> str:
        if name not in means:
            return "–"
        pairs = len(shares[name])
        return f"{means[name]:.2f}" + (f" ({pairs} of {most} pairs)" if pairs < most else "")

    peers = [n for n, m in METHODS.items() if not m.ours and m.cost == 1 and n != "sum distilled"]
    return {
        "setting": title,
        "as it is": shown("as it is"),
        "best peer": top([name for name in peers if not name.startswith("functional")]),
        "functional": top([name for name in peers if name.startswith("functional")]),
        "ours, no data": shown("ours, no data"),
        "ours, layer by layer": shown("ours, layer by layer"),
        "ours, learned": shown("ours, learned"),
        "sum of logits, cost x 3": shown("sum of logits"),
        "sum distilled": shown("sum distilled"),
    }
