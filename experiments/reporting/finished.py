"""Rows that are measured once: a run that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.reporting.json_files import read_json, write_json


class Finished:
    """Keep what is measured in a folder, one JSON file a row.

    Args:
        folder: of the experiment; the rows lie in its folder `finished`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = Finished(Path(folder))
        ...     _ = rows.row("digits-0", lambda: {"barrier": 0.5})
        ...     rows.row("digits-0", lambda: {"barrier": 0.7}), len(rows.all("digits-*"))
        ({'barrier': 0.5}, 1)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "finished"

    def row(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the row of this name, measured now if it is not there."""
        file = self.folder / f"{name}.json"
        if not file.is_file():
            write_json(file, measure())
        found: dict[str, Any] = read_json(file)
        return found

    def all(self, pattern: str) -> list[dict[str, Any]]:
        """Return every row whose name fits a pattern, in the order of names."""
        return [read_json(file) for file in sorted(self.folder.glob(f"{pattern}.json"))]
