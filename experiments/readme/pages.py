"""Fill the generated parts of the README and of the pages of results from receipts.

    python -m experiments.readme            write the generated parts
    python -m experiments.readme --check    only tell whether they are up to date
    python -m experiments.readme --picture  write the picture of the README, too

A generated part stands between `<!-- KIND:NAME#KEY -->` and `<!-- /KIND -->`. NAME is a folder below
`experiments/results`, KEY may be left out, and the kinds are:

- `results`: the table `metrics[KEY]` of one receipt, `rows` by default, and the command that made it;
- `settings`: one section for each receipt of compared methods below NAME;
- `lead`: one row for each of them, with several names in a row; KEY is the figure, the test barrier by default;
- `across`: one figure KEY, the test barrier by default, in the settings that NAME lists, one column each;
- `config`: one row for each receipt that NAME, a pattern, stands for; KEY lists settings of its configuration.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.readme.across import across_table
from experiments.readme.configurations import configurations
from experiments.readme.lead import lead_table
from experiments.readme.picture import draw_lead
from experiments.readme.sections import result_table, setting_sections

REPOSITORY = Path(__file__).parents[2]
PAGES = ("README.md", "experiments/RESULTS.md", "experiments/PROTOCOL.md")
PICTURE = Path("experiments") / "results" / "paths.png"
_PART = re.compile(
    r"(?P<start><!-- (?P<kind>results|settings|lead|across|config):"
    r"(?P<name>[\w./*, -]+?)(?:#(?P<key>[\w., -]+?))? -->\n)"
    r".*?(?P<end><!-- /(?P=kind) -->)",
    re.DOTALL,
)


def has_markers(text: str) -> bool:
    """Tell whether a text has any generated part.

    Example:
        >>> has_markers("<!-- results:barriers -->\\n<!-- /results -->")
        True
    """
    return _PART.search(text) is not None


def render(text: str, repository: Path = REPOSITORY, page: Path = Path("README.md")) -> str:
    """Return `text` with every generated part made anew.

    Args:
        text: of a page.
        repository: that holds `experiments/results`.
        page: where the page lies in it, which decides how its links read.

    Raises:
        DataError: a receipt is missing, or has no such table.
    """
    results, links = repository / "experiments" / "results", page.parent

    def made(match: re.Match[str]) -> str:
        kind, name, key = match["kind"], match["name"], match["key"]
        if kind == "results":
            return result_table(results, name, key or "rows", links)
        if kind == "settings":
            return setting_sections(results, name, links)
        if kind == "lead":
            return lead_table(results, name.split(","), key or "test_barrier")
        if kind == "across":
            return across_table(results, name.split(","), key or "test_barrier")
        return configurations(results, name, (key or "").split(","))

    return _PART.sub(lambda match: f"{match['start']}{made(match)}\n{match['end']}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill or check the pages; return 1 when `--check` finds one out of date."""
    parser = argparse.ArgumentParser(description="Fill the generated parts of the pages from receipts.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if out of date")
    parser.add_argument("--picture", action="store_true", help="write the picture of the README, too")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    options = parser.parse_args(arguments)
    if options.picture and not options.check:
        draw_lead(options.repository / "experiments" / "results", options.repository / PICTURE)
    old = []
    for page in PAGES:
        file = options.repository / page
        text = file.read_text(encoding="utf-8")
        filled = render(text, options.repository, Path(page))
        old += [page] if filled != text else []
        if not options.check:
            file.write_text(filled, encoding="utf-8")
    if options.check:
        print(f"out of date: {', '.join(old)}; run python -m experiments.readme" if old else "up to date")
    return int(options.check and bool(old))
