"""A permutation spec as HTML tables, for notebooks."""

from __future__ import annotations

import html

from sinkhorn_rebasin.permutations.structure import SpecStructure
from sinkhorn_rebasin.permutations.views.report import Table, headline, kept_apart, tables


def describe_html(spec: SpecStructure) -> str:
    """Describe a spec in HTML tables, as ``print(spec)`` does in words.

    No name has an effect as HTML.

    >>> from sinkhorn_rebasin.permutations import Group, PermutationSpec
    >>> describe_html(PermutationSpec((Group("<b>", 2),), (), {})).count("&lt;b&gt;")
    1
    """
    told = [headline(spec), *([str(spec.validity)] if spec.validity else []), *kept_apart(spec)]
    paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in told)
    return paragraphs + "".join(_table(table) for table in tables(spec))


def _table(table: Table) -> str:
    """Write one table, and below it what was left out."""
    rows = [_row("th", table.columns), *(_row("td", row) for row in table.rows)]
    rest = f"<p>{html.escape(table.rest)}</p>" if table.rest else ""
    return f"<table><caption>{html.escape(table.title)}</caption>{''.join(rows)}</table>{rest}"


def _row(kind: str, cells: tuple[str, ...]) -> str:
    inside = "".join(f"<{kind} style='text-align:left'>{html.escape(cell)}</{kind}>" for cell in cells)
    return f"<tr>{inside}</tr>"
