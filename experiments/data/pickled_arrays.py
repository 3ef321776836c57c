"""Pickled batches of images, read without running any code that is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sinkhorn_rebasin.errors import DataError


def existing_file(path: Path) -> Path:
    """Return the path.

    Raises:
        DataError: no file is there.
    """
    if not path.is_file():
        raise DataError(f"Expected the file {path} but got none of that name. The data set is incomplete.")
    return path


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickle arrays of numbers and nothing else, so that a prepared file can run no code."""

    # numpy renamed the module this function lives in; a pickled array leads to it in every version.
    allowed = {  # noqa: RUF012
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.allowed:
            return self.allowed[name]
        raise DataError(f"Expected arrays, lists and numbers in a batch of images but got {module}.{name}.")


def unpickle_arrays(path: Path) -> dict[bytes, Any]:
    """Return what a pickled batch holds.

    Raises:
        DataError: it holds something else than arrays, lists and numbers.
    """
    with path.open("rb") as file:
        content: dict[bytes, Any] = _ArrayUnpickler(file, encoding="bytes").load()
    return content
