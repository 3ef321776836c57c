"""What receipts were made with, one row a receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.reporting.receipts import markdown_table, read_receipt
from sinkhorn_rebasin.errors import DataError


def configurations(results: Path, pattern: str, keys: Sequence[str]) -> str:
    """Return a table of settings: one row for each receipt whose folder the pattern stands for.

    Args:
        results: folder of all results.
        pattern: such as `compare_methods/*`; several are separated by commas.
        keys: of the configuration, with a dot before what lies inside another.

    Raises:
        DataError: no receipt, or a key that none of them has.
    """
    paths = [
        path for part in pattern.split(",") for path in sorted(results.glob(f"{part.strip()}/receipt.json"))
    ]
    if not paths:
        raise DataError(f"Expected receipts in {pattern} of {results} but got none.")
    rows = []
    for path in paths:
        receipt = read_receipt(path)
        config = receipt["config"]
        name = config.get("title") or path.parent.relative_to(results).as_posix()
        values = {
            key.strip().replace("_", " ").replace(".", ", "): value_at(config, key.strip()) for key in keys
        }
        rows.append({"setting": name, **{title: _text(value) for title, value in values.items()}})
    for title in rows[0]:
        if all(row[title] == "" for row in rows):
            raise DataError(
                f"Expected {title!r} in the configuration of a receipt in {pattern} but none has it."
            )
    return markdown_table(sorted(rows, key=lambda row: str(row["setting"])))


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return what stands at a dotted key, or None.

    Example:
        >>> value_at({"recipe": {"steps": 2000}}, "recipe.steps")
        2000
    """
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> Any:
    """Write what a table has no form for: nothing, ranges, pairs of seeds."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "; ".join(
            " and ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value
        )
    return value
