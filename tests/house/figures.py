"""How a checkout of this project stands as a house: circles, loose files, duplicates and docstrings.

    python -m tests.house.figures
    python -m tests.house.figures --tree ../before --pylint .venv-tools/bin/pylint --list

Reads files and imports nothing of the checkout, so that it counts older commits too (`git worktree add ../before
COMMIT`).

Duplicates are counted by pylint's `duplicate-code`: runs of six lines or more that two files of the package share.
Imports, docstrings, comments and blank lines are left out. "Word for word" are those of the files as they are, "of
the same shape" those of a copy in which all names, all numbers and all strings are alike.

First lines are those of all docstrings of functions, methods and classes, private ones included. A line begins with
a verb when its first word is in the list of `tests/house/prose.py`. A public function stands in a module or a class
and has no underscore on the way to it; methods such as `__len__` are left out.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.house.duplicates import LINES, MissingTool, pylint_command, same_shape, same_text
from tests.house.import_graph import NAME, circles, import_graph
from tests.house.prose import begins_with_verb, docstrings

HERE = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, default=HERE, help="the checkout to count")
    parser.add_argument("--pylint", type=Path, default=None, help="of an environment of its own")
    parser.add_argument("--quick", action="store_true", help="leave duplicates out")
    parser.add_argument("--list", action="store_true", help="name what is counted")
    options = parser.parse_args(arguments)
    if not (options.tree / NAME).is_dir():
        parser.error(f"expected a checkout with {NAME} in it at {options.tree} but got none")
    figures = {**structure(options.tree), **prose(options.tree)}
    if not options.quick:
        try:
            figures |= duplicates(options.tree, pylint_command(options.pylint))
        except MissingTool as error:
            parser.error(str(error))
    table = Table("figure", "count", title=options.tree.resolve().name)
    console = Console(width=140, highlight=False)
    for figure, count in figures.items():
        if isinstance(count, list) and options.list:
            console.print("\n  ".join([f"{figure}:", *count]), markup=False)
        table.add_row(figure, str(len(count) if isinstance(count, list) else count))
    console.print(table)


def structure(tree: Path) -> dict[str, str | list[str]]:
    """Count circles of files, layers that are a single file, and files that lie loose in ``symmetry``."""
    found = [" -> ".join(circle) for circle in circles(import_graph(tree))]
    loose = [path.name for path in sorted((tree / NAME / "symmetry").glob("*.py")) if path.stem != "__init__"]
    return {
        "circles among files": found,
        "single files in the folder order": single_files(tree / "tests" / "test_house.py"),
        "loose files in symmetry": loose,
    }


def single_files(rules: Path) -> list[str]:
    """Read which layers of the house rules are a file in a folder rather than a folder."""
    nodes = ast.parse(rules.read_text(encoding="utf-8")).body if rules.is_file() else []
    layers = [
        ast.literal_eval(node.value)
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    ]
    return [name for layer in layers for names in layer for name in names if "." in name]


def prose(tree: Path) -> dict[str, str | list[str]]:
    """Count first lines of docstrings, their words and verbs, and public functions that have none."""
    every = list(docstrings(tree, NAME))
    written = [docstring for docstring in every if docstring.first]
    words = [len(docstring.first.split()) for docstring in written]
    verbs = [begins_with_verb(docstring.first, docstring.of_class) for docstring in written]
    functions = [d for d in written if not d.of_class]
    share = statistics.mean(begins_with_verb(d.first) for d in functions)
    return {
        "first lines of docstrings": str(len(written)),
        "median words": f"{statistics.median(words):g}",
        "begin with a verb": f"{statistics.mean(verbs):.0%}",
        "begin with a verb, functions alone": f"{share:.0%}",
        "public functions without a docstring": [
            d.where
            for d in every
            if d.public and not d.of_class and not d.first and "__" not in d.where.split()[-1]
        ],
    }


def duplicates(tree: Path, pylint: str) -> dict[str, str | list[str]]:
    """Count runs of lines that stand in two files."""
    return {
        f"runs of {LINES} lines or more, word for word": same_text(tree, NAME, pylint),
        f"runs of {LINES} lines or more, of the same shape": same_shape(tree, NAME, pylint),
    }


if __name__ == "__main__":
    main()
