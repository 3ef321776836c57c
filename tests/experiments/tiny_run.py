"""A question to the networks of a tiny setting, answered in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.reporting.question import Question
from experiments.reporting.receipts import read_receipt


def answered(question: Question, setting: str, folder: Path) -> dict[str, Any]:
    """Run a question on a setting's first pair, and return the figures of its receipt."""
    file = folder / "tiny.yaml"
    file.write_text(setting)
    options = ["--pairs", "1", "--out", str(folder), "--cache", str(folder / "nets")]
    question.answer([str(file), *options])
    assert (folder / f"{question.experiment}.png").is_file()
    return dict(read_receipt(folder)["metrics"])
