"""Networks of other people's packages, each in a process of its own with a time limit; finished rows are kept."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sinkhorn_rebasin
from experiments.zoo.packages_models import NETWORKS
from experiments.zoo.packages_models.network import Network
from experiments.zoo.tables import by_package

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120.0
MEASURING = ("exceptions", "fresh_inputs", "measurement", "packages_worker", "sensitivity")
WORKER = "experiments.zoo.packages_worker"


def packages_python() -> Path:
    """Return the Python of the packages: PACKAGES_PYTHON, that of ``.venv-packages``, or this one."""
    made = REPOSITORY / ".venv-packages" / "bin" / "python"
    value = os.environ.get("PACKAGES_PYTHON") or (made if made.is_file() else sys.executable)
    # absolute() and not resolve(): a virtual environment is found through the link that its python is
    return Path(value).absolute()


@dataclass(frozen=True)
class Runner:
    """Measure networks one by one.

    Attributes:
        python: the Python in whose environment the packages are.
        folder: finished rows. A row is measured again when the package or the factory's file has changed.
        seconds: how long one network may take.
        worker: the module that measures one network and writes its row.
    """

    python: Path
    folder: Path
    seconds: float = SECONDS
    worker: str = WORKER

    def row(self, network: Network) -> dict[str, Any]:
        """Return the finished row of a network, or measure it."""
        key = f"{sources()} {network.source}"
        path = self.folder / f"{network.name.replace('/', '-')}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if kept.get("key") == key:
            found: dict[str, Any] = kept["row"]
            return found
        row = self._measured(network)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"key": key, "row": row}, indent=1), encoding="utf-8")
        part.replace(path)
        return row

    def _measured(self, network: Network) -> dict[str, Any]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "row.json"
            command = [str(self.python), "-m", self.worker, network.name, str(file)]
            try:
                done = subprocess.run(
                    command,
                    cwd=REPOSITORY,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=self.seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return _failed(network, f"took more than {self.seconds:g} s")
            if done.returncode == 0 and file.is_file():
                row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
                return row
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _failed(network, f"its process ended with {done.returncode}: {last}"[:300])


def chosen(only: Iterable[str] | None) -> list[Network]:
    """Return the networks by name, or all of them, in order."""
    wanted = None if only is None else set(only)
    return [network for name, network in sorted(NETWORKS.items()) if wanted is None or name in wanted]


def tables(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a receipt of this family holds beside that of others."""
    skipped = [{"network": row["network"], "reason": row["skipped"]} for row in rows if "skipped" in row]
    return {"packages": by_package(rows), "skipped": skipped}


def sources() -> str:
    """Return a short hash of the sources that a row depends on, by which rows of another version are told."""
    found = hashlib.sha256()
    measuring = (REPOSITORY / "experiments" / "zoo" / f"{name}.py" for name in MEASURING)
    for file in [*sorted(Path(sinkhorn_rebasin.__file__).parent.rglob("*.py")), *measuring]:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _failed(network: Network, error: str) -> dict[str, Any]:
    return {"network": network.name, "sound": False, "error": error}
