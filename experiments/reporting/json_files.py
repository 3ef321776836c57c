"""JSON files of results: written whole or not at all, and named when one does not read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sinkhorn_rebasin.errors import DataError


def write_json(path: Path, value: Any, **options: Any) -> None:
    """Write a value beside its place and move it there when it is complete; `options` are those of `json.dumps`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, **options) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_json(path: Path) -> Any:
    """Read a value back.

    Raises:
        DataError: the file is cut short or no JSON.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "row.json"
        ...     write_json(path, {"barrier": 0.25})
        ...     read_json(path)
        {'barrier': 0.25}
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"Expected JSON in {path} but got {error}. The file is cut short or was changed: delete it, and what it "
            f"holds is made again."
        ) from error
