"""Fill the tables of RESULTS.md from receipts.

    python -m experiments.readme            write the tables
    python -m experiments.readme --check    only tell whether they are up to date

Text between `<!-- results:NAME -->` and `<!-- /results -->` is replaced by the table `metrics["rows"]` of
`experiments/results/NAME/receipt.json`; `<!-- results:NAME#KEY -->` takes `metrics[KEY]` instead. The command
that made the receipt stands below each table, or those that made what it gathers.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.reporting.receipts import markdown_table, read_receipt
from sinkhorn_rebasin.errors import DataError

REPOSITORY = Path(__file__).parents[2]
RESULTS = Path("experiments") / "results"
_SECTION = re.compile(
    r"(?P<start><!-- results:(?P<name>[\w./-]+)(?:#(?P<key>[\w.-]+))? -->\n).*?(?P<end><!-- /results -->)",
    re.DOTALL,
)


def has_markers(text: str) -> bool:
    """Tell whether a text has any table to fill.

    Example:
        >>> has_markers("<!-- results:barriers -->\\n<!-- /results -->")
        True
    """
    return _SECTION.search(text) is not None


def render(text: str, repository: Path = REPOSITORY) -> str:
    """Return `text` with every marked section replaced by the table of its receipt.

    Raises:
        DataError: a receipt is missing, or has no such table.
    """

    def section(match: re.Match[str]) -> str:
        return f"{match['start']}{_table(match['name'], match['key'] or 'rows', repository)}\n{match['end']}"

    return _SECTION.sub(section, text)


def _table(name: str, key: str, repository: Path) -> str:
    path = RESULTS / name / "receipt.json"
    receipt = read_receipt(repository / path)
    rows = receipt["metrics"].get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"Expected metrics[{key!r}] of {path} to be a list of rows but got {type(rows).__name__}."
        )
    commands = ", ".join(f"`{command}`" for command in receipt.get("commands") or [receipt["command"]])
    return f"{markdown_table(rows)}\n\n{commands} ([receipt]({path.as_posix()}))"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill or check the page; return 1 when `--check` finds it out of date."""
    parser = argparse.ArgumentParser(description="Fill the tables of RESULTS.md from receipts.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if out of date")
    parser.add_argument("--file", type=Path, default=REPOSITORY / "RESULTS.md")
    options = parser.parse_args(arguments)
    text = options.file.read_text(encoding="utf-8")
    filled = render(text)
    if options.check:
        print("up to date" if filled == text else "out of date: run python -m experiments.readme")
        return int(filled != text)
    options.file.write_text(filled, encoding="utf-8")
    return 0
