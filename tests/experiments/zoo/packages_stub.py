"""Stands in for the worker: it does what the name of the network says."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(name: str, file: str) -> None:
    """Write a row, fail, end by a signal, or take long."""
    kind = name.partition("/")[2]
    if kind == "raises":
        raise ValueError("a message of its own")
    if kind == "crashes":
        os.abort()
    if kind == "hangs":
        time.sleep(60)
    row = {"network": name, "sound": True, "process": os.getpid()}
    Path(file).write_text(json.dumps(row), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
