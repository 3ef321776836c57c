"""How results show themselves in notebooks: one table of names and values, and a picture where there is one."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN = 260, 90, 6


def html_table(title: str, rows: Sequence[tuple[str, object]], picture: str = "") -> str:
    """Write names and values as an HTML table.

    Neither a name nor a value has an effect as HTML; the picture is put below as it is.

    Example:
        >>> html_table("Path", [("barrier", "<0.1")])
        "<table><caption>Path</caption><tr><th style='text-align:left'>barrier</th><td \
style='text-align:left'>&lt;0.1</td></tr></table>"
    """
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption>{html.escape(title)}</caption>{cells}</table>{picture}"


def svg_curve(positions: Sequence[float], values: Sequence[float]) -> str:
    """Draw values over positions as a line, with the chord between its ends; nothing where a value is infinite.

    Example:
        >>> svg_curve([0.0, 0.5, 1.0], [1.0, 2.0, 1.0]).count("<polyline")
        2
    """
    low, high = min(values), max(values)
    if not high - low < float("inf"):
        return ""
    first, last = positions[0], positions[-1]

    def point(position: float, value: float) -> str:
        across = (position - first) / ((last - first) or 1.0)
        up = (value - low) / ((high - low) or 1.0)
        x = MARGIN + across * (WIDTH - 2 * MARGIN)
        return f"{x:.1f},{HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN):.1f}"

    line = " ".join(point(*pair) for pair in zip(positions, values, strict=True))
    chord = f"{point(first, values[0])} {point(last, values[-1])}"
    return (
        f"<svg width='{WIDTH}' height='{HEIGHT}'>"
        f"<polyline points='{chord}' fill='none' stroke='gray' stroke-dasharray='4'/>"
        f"<polyline points='{line}' fill='none' stroke='currentColor' stroke-width='2'/></svg>"
    )
