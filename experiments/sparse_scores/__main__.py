"""Scores on a few candidates: cost at the widths of language models, quality beside all scores.

    python -m experiments.sparse_scores cost 4096 16 --steps 16
    python -m experiments.sparse_scores quality 512 --depth 2 --root data
    python -m experiments.sparse_scores table

Each of the first two measures in its own process and adds its rows; `table` writes the receipt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.reporting.json_files import read_json, write_json
from experiments.reporting.receipts import command_line, markdown_table, write_receipt
from experiments.sparse_scores import cost, quality

RESULTS = Path(__file__).resolve().parents[1] / "results" / "sparse_scores"


def main() -> None:
    """Measure one row, or gather all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("cost", "quality", "table"))
    parser.add_argument("width", type=int, nargs="?", default=4096)
    parser.add_argument("candidates", type=int, nargs="*", default=[16, 32])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path("data"))
    options = parser.parse_args()
    if options.part == "table":
        gather()
        return
    if options.part == "cost":
        rows = [cost.measure(options.width, count, options.steps) for count in options.candidates]
    else:
        rows = quality.measure(options.root, options.width, options.depth, options.candidates, options.steps)
    name = f"{options.part}_{options.width}_{'_'.join(map(str, options.candidates))}.json"
    write_json(RESULTS / name, {"command": command_line(), "rows": rows}, indent=1)
    print(markdown_table(rows))


def gather() -> None:
    """Write the receipt of all rows."""
    parts = [read_json(path) for path in sorted(RESULTS.glob("*_*.json"))]
    rows = [row for part in parts for row in part["rows"]]
    tables = {
        "cost": [row for row in rows if "ratio" in row],
        "quality": [row for row in rows if "test barrier" in row],
    }
    write_receipt(
        RESULTS,
        experiment="sparse_scores",
        config={"features": 1024, "noise": 1.0, "images": quality.IMAGES},
        metrics=tables,
        seeds=[0, 1],
        commands=[part["command"] for part in parts],
    )
    for table in tables.values():
        print(markdown_table(table) + "\n")


if __name__ == "__main__":
    main()
