"""Receipts: what was run, with what, on what, and what came out, as one JSON file beside the results.

A receipt holds the command, configuration, seeds, package versions, machine, UTC date and metrics of one
experiment. Tables in RESULTS.md are made from receipts alone (`python -m experiments.readme`), so no figure
is ever typed by hand.
"""

from __future__ import annotations

import math
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import sinkhorn_rebasin
from experiments.reporting.json_files import read_json, write_json
from sinkhorn_rebasin.errors import DataError

PACKAGES = (
    *("lightning", "numpy", "POT", "safetensors", "scikit-learn", "scipy", "timm", "torch", "torchmetrics"),
    *("torchvision", "transformers"),
)
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~])/(?:[\w.+@-]+/)+[\w.+@-]*")


def write_receipt(
    folder: Path,
    *,
    experiment: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    seeds: Sequence[int],
    commands: Sequence[str] = (),
) -> Path:
    """Write `folder/receipt.json` and return its path.

    `commands` are those that make the metrics, where this process only gathered what others made.

    Tensors, numpy numbers and paths in `config` and `metrics` become plain JSON values; numbers keep all
    their digits. Keys are sorted, except in `metrics`, whose order is that of the tables' columns.
    Absolute paths become relative ones. NaN and infinities, which JSON cannot hold, become strings.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_receipt(
        ...         Path(folder), experiment="demo", config={"lr": 0.1}, metrics={"barrier": 0.25}, seeds=[0]
        ...     )
        ...     read_receipt(path)["metrics"] == {"barrier": 0.25}
        True
    """
    receipt = {
        "experiment": experiment,
        "command": command_line(),
        **({"commands": [_without_machine_paths(command) for command in commands]} if commands else {}),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seeds": [int(seed) for seed in seeds],
        "config": _plain(config, sort=True),
        "machine": _machine(),
        "versions": _versions(),
        "metrics": _plain(metrics, sort=False),
    }
    path = folder / "receipt.json"
    write_json(path, receipt, indent=1, allow_nan=False)
    return path


def read_receipt(path: Path) -> dict[str, Any]:
    """Return the receipt at `path`, which may be the file or the folder it lies in.

    Raises:
        DataError: there is no receipt, or the file is cut short.
    """
    file = path / "receipt.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"Expected a receipt at {file} but got no such file. Run the experiment that writes it."
        )
    receipt = read_json(file)
    if not isinstance(receipt, dict):
        raise DataError(f"Expected a receipt at {file} but got a {type(receipt).__name__}.")
    return receipt


def markdown_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, digits: int = 4
) -> str:
    """Render rows as a Markdown table, numbers with `digits` significant digits and absent cells empty.

    Columns are `columns`, or every key in the order it is first met.

    Example:
        >>> print(markdown_table([{"method": "naive", "barrier": 2.02173}, {"method": "ours"}]))
        | method | barrier |
        |---|---|
        | naive | 2.022 |
        | ours |  |
    """
    names = list(columns) if columns is not None else list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, *([_cell(row.get(name), digits) for name in names] for row in rows)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(names), *text[1:]])


def command_line() -> str:
    """Return the command that started this process, in `python -m` form and without absolute paths."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec is not None else None
    start = ["python", "-m", module] if module else ["python", _without_machine_paths(sys.argv[0])]
    return shlex.join([*start, *(_without_machine_paths(argument) for argument in sys.argv[1:])])


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _plain(value: Any, *, sort: bool) -> Any:
    if isinstance(value, Mapping):
        items = ((str(key), _plain(item, sort=sort)) for key, item in value.items())
        return dict(sorted(items)) if sort else dict(items)
    if isinstance(value, (str, os.PathLike)):
        return _without_machine_paths(os.fspath(value))
    if isinstance(value, Sequence):
        return [_plain(item, sort=sort) for item in value]
    if hasattr(value, "tolist"):  # tensors, numpy arrays and numpy numbers
        return _plain(value.tolist(), sort=sort)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _without_machine_paths(text: str) -> str:
    return _ABSOLUTE_PATH.sub(lambda match: _relative(match.group()), text)


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return Path(path).name if relative.startswith(os.path.join("..", "..")) else Path(relative).as_posix()


def _machine() -> dict[str, Any]:
    machine = {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in PACKAGES if _is_installed(name)}
    return {**versions, "sinkhorn_rebasin": sinkhorn_rebasin.__version__}


def _is_installed(distribution: str) -> bool:
    return any(True for _ in metadata.distributions(name=distribution))
