"""Finished work on disk, so that a stopped comparison goes on where it was."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from experiments.compare_methods.methods import names_of
from experiments.compare_methods.pair import Outcome
from experiments.compare_methods.setting import Setting, Training
from experiments.data import ImageData
from experiments.models.endpoints import endpoint_key, read_tensors
from experiments.reporting.json_files import read_json, write_json


class Store:
    """Rows, permutations and networks of one setting in a folder of its own.

    A row belongs to what it was measured under: the setting, the endpoints and their data, and the threads. When any
    of it has changed, it is measured again; but our recipe matters to our rows alone, and the budget to the others.
    A part of a setting that a row does not know came later, and the row was measured at its default.
    """

    def __init__(self, folder: Path, setting: Setting, data: ImageData, threads: int) -> None:
        self.folder = folder / "finished"
        plain = asdict(setting)
        for name in ("without", "title", "seeds"):
            del plain[name]
        test = [zlib.crc32(tensor.numpy().tobytes()) for tensor in (data.test_images, data.test_labels)]
        key = {
            "setting": plain,
            "endpoint": endpoint_key(setting.endpoint(0), data),
            "test": test,
            "threads": threads,
        }
        self.key = json.loads(json.dumps(key))

    def row(self, seeds: tuple[int, int], method: str) -> dict[str, Any] | None:
        """The finished row of a method on a pair, or None."""
        path = self._path(seeds, method, ".json")
        if not path.is_file():
            return None
        found: dict[str, Any] = read_json(path)
        return found["row"] if _told(found.get("key", {})) == _told(self._key_of(method)) else None

    def permutations(self, seeds: tuple[int, int], method: str) -> Mapping[str, Tensor]:
        """The permutations a finished method found; empty when it does not tell."""
        path = self._path(seeds, method, "-permutations.safetensors")
        return read_tensors(path) if path.is_file() and self.row(seeds, method) else {}

    def keep(self, seeds: tuple[int, int], method: str, outcome: Outcome, row: Mapping[str, Any]) -> None:
        """Keep the rebased network, its permutations and, last of all, the row that tells they are complete."""
        self.forget(method, seeds)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save(outcome.rebased, self._path(seeds, method, "-rebased.safetensors"))
        if outcome.permutations:
            self._save(outcome.permutations, self._path(seeds, method, "-permutations.safetensors"))
        write_json(self._path(seeds, method, ".json"), {"key": self._key_of(method), "row": row})

    def forget(self, method: str, seeds: tuple[int, int]) -> None:
        """Remove what is kept of a method on a pair."""
        for suffix in (".json", "-permutations.safetensors", "-rebased.safetensors"):
            self._path(seeds, method, suffix).unlink(missing_ok=True)

    def _key_of(self, method: str) -> dict[str, Any]:
        unused = "budget" if method in names_of("ours") else "recipe"
        setting = {name: value for name, value in self.key["setting"].items() if name != unused}
        return {**self.key, "setting": setting}

    def _path(self, seeds: tuple[int, int], method: str, suffix: str) -> Path:
        return self.folder / f"seeds{seeds[0]}-{seeds[1]}-{_stem(method)}{suffix}"

    def _save(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path
        )


def _told(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key with those parts of the setting alone that are not at their defaults."""
    default = asdict(Setting(title="", data="digits", model="", training=Training(epochs=0)))
    return {**key, "setting": _differing(key.get("setting", {}), json.loads(json.dumps(default)))}


def _differing(found: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    parts = {
        name: _differing(value, default[name]) if isinstance(value, dict) and name in default else value
        for name, value in found.items()
    }
    return {name: part for name, part in parts.items() if part != default.get(name) and part != {}}


def _stem(method: str) -> str:
    return method.replace(",", "").replace(" ", "-")
