"""The tables over all settings: which receipts they are made of, and by which commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.compare_methods import __main__ as command
from experiments.compare_methods.overview import commands_for, read_receipts
from experiments.readme.pages import render
from experiments.reporting.json_files import write_json
from experiments.reporting.receipts import read_receipt


def row(method: str, pair: int) -> dict[str, Any]:
    figures = ("test_barrier", "repaired_barrier", "seconds", "relative_change", "midpoint_loss")
    return {"method": method, "seeds": [2 * pair, 2 * pair + 1], **dict.fromkeys(figures, 0.5)}


def setting(folder: Path, name: str, pairs: int, *methods: str, data: str = "mnist") -> None:
    """A receipt as the comparison leaves it, of these methods on so many pairs."""
    rows = [row(method, pair) for pair in range(pairs) for method in methods]
    receipt = {"config": {"title": name, "data": data}, "seeds": list(range(2 * pairs))}
    write_json(folder / name / "receipt.json", {**receipt, "metrics": {"title": name.upper(), "rows": rows}})


def test_the_commands_measure_what_the_tables_show(tmp_path: Path) -> None:
    setting(tmp_path, "cnn", 1, "naive", "published Sinkhorn")
    setting(tmp_path, "mlp_b", 3, "naive", "ours")
    setting(tmp_path, "mlp_a", 3, "naive")
    setting(tmp_path, "digits", 2, "naive", data="digits")
    receipts, problems = read_receipts(tmp_path)
    assert not problems
    start = "python -m experiments.compare_methods"
    assert commands_for(receipts, Path("../data")) == [
        f"{start} cnn --root ../data --pairs 1 --published-python .venv-published/bin/python",
        f"{start} digits --pairs 2",
        f"{start} mlp_a mlp_b --root ../data --pairs 3",
    ]
    for made in commands_for(receipts, Path("../data")):
        assert not command.parse(made.split()[3:]).tables


@pytest.mark.parametrize("content", ["", '{"metrics": {"ti', "[]", "{}", '{"metrics": {"title": "x"}}'])
def test_one_broken_receipt_does_not_stop_the_others(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(tmp_path, "mlp", 1, "naive")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "receipt.json").write_text(content, encoding="utf-8")
    receipts, problems = read_receipts(tmp_path)
    assert list(receipts) == ["mlp"]
    assert len(problems) == 1
    assert "broken/receipt.json" in problems[0]


def test_the_commands_stand_below_the_tables(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "results" / "demo"
    write_json(
        folder / "receipt.json",
        {"command": "python gather", "commands": ["python a", "python b"], "metrics": {"rows": [{"n": 1}]}},
    )
    assert "`python a`, `python b` ([receipt]" in render("<!-- results:demo -->\n<!-- /results -->", tmp_path)


def test_the_command_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "title: tiny\ndata: digits\nmodel: mlp\narguments: {inputs: 64, widths: [4]}\ntraining: {epochs: 1}\n"
        "seeds: [[0, 1]]\nevaluation: {points: 3, test_images: 50, train_images: 50, repair_images: 50}\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    (out / "broken").mkdir(parents=True)
    (out / "broken" / "receipt.json").write_text("{", encoding="utf-8")
    command.main([str(file), "--cache", str(tmp_path), "--out", str(out), "--methods", "naive"])
    receipt = read_receipt(out)
    assert receipt["commands"] == ["python -m experiments.compare_methods tiny --pairs 1"]
    assert receipt["config"]["settings"] == ["tiny"]
    rows = out / "tiny" / "finished" / "seeds0-1-naive.json"
    rows.write_text(rows.read_text(encoding="utf-8")[:40], encoding="utf-8")
    with pytest.raises(command.RebasinError, match=r"seeds0-1-naive\.json"):
        command.main([str(file), "--cache", str(tmp_path), "--out", str(out), "--methods", "naive"])
