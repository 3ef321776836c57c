"""Rows of one setting: made once for each pair and method, and kept in a file of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from experiments.carry.bench import Bench, Tried, best
from experiments.carry.labels import from_carried, from_new_base
from experiments.carry.masks import MASKS, masked
from experiments.carry.methods import METHODS
from experiments.carry.setting import Setting
from experiments.reporting.json_files import read_json, write_json

Rows = dict[str, Callable[[Bench], Iterable[Tried]]]


def rows_of(setting: Setting, transformer: bool) -> Rows:
    """Return what is measured in a setting, by the names of rows."""
    rows: Rows = {
        "new base": lambda bench: [({}, bench.pair.new_base)],
        "fine-tuned on all labels": lambda bench: [({}, bench.pair.new_tuned)],
    }
    text = setting.data == "source_text"
    rows |= {
        name: m.tried
        for name, m in METHODS.items()
        if (transformer or not m.transformers) and (text or not m.text)
    }
    for count in setting.labels.counts:
        rows[f"{count} {FROM_NEW_BASE}"] = from_new_base(count)
        rows[f"{count} {FROM_CARRIED}"] = from_carried(count)
    if setting.sparsity is not None:
        rows |= {name: masked(mask) for name, mask in MASKS.items()}
    return {name: tried for name, tried in rows.items() if name not in setting.without}


FROM_NEW_BASE, FROM_CARRIED = "labels, from the new base", "labels, from the carried"
WIDE_ROWS = (
    *("new base", "fine-tuned on all labels", "weight matching"),
    *("ours, no data", "ours, layer by layer", "ours, learned"),
)


def row(
    folder: Path, bench: Bench, seeds: tuple[int, int], name: str, make: Callable[[Bench], Iterable[Tried]]
) -> dict[str, Any]:
    """Return a row from the folder, or measure and keep it; it belongs to the setting as it is now."""
    path = row_path(folder, bench.setting, seeds, name)
    if path.is_file():
        return dict(read_json(path))
    today = datetime.now(timezone.utc).date().isoformat()
    made = {"method": name, "seeds": list(seeds), "date": today, **best(bench, make(bench))}
    write_json(path, made, indent=1)
    return made


def row_path(folder: Path, setting: Setting, seeds: tuple[int, int], name: str) -> Path:
    """Name the file of a row, by what its figures depend on."""
    facts = {
        k: v for k, v in asdict(setting).items() if k not in ("title", "seeds", "without", "labels", "wide")
    }
    facts["tuning"] = setting.tuning.facts()
    if name.endswith((FROM_NEW_BASE, FROM_CARRIED)):
        unsaid = {"copies": 1, "way": "default", "reach": 0, "beside": False}
        labels = asdict(setting.labels)
        facts["labels"] = {k: v for k, v in labels.items() if k not in unsaid or v != unsaid[k]}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]
    stem = name.replace(" ", "_").replace(",", "")
    return folder / "finished" / f"{seeds[0]}-{seeds[1]}-{stem}-{digest}.json"
