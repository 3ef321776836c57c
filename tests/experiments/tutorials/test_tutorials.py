"""Every tutorial runs, ends in a truth, and is short."""

from __future__ import annotations

import ast
import importlib.util
import runpy
from pathlib import Path

import pytest

from experiments.tutorials.truth import check

FOLDER = Path(__file__).resolve().parents[3] / "experiments" / "tutorials"
TUTORIALS = sorted(FOLDER.glob("[0-9]*.py"))
NEEDS = {"08_transformer_from_disk_to_disk": "transformers"}


def test_there_are_tutorials_in_order() -> None:
    assert [int(tutorial.name[:2]) for tutorial in TUTORIALS] == list(range(1, len(TUTORIALS) + 1))
    assert len(TUTORIALS) >= 8


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.stem)
def test_a_tutorial_is_short_has_cells_and_ends_in_a_truth(tutorial: Path) -> None:
    text = tutorial.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 90
    assert text.count("\n# %% ") >= 3
    checks = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert any(isinstance(call.func, ast.Name) and call.func.id == "check" for call in checks)


def test_what_is_not_true_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    check(1 < 2, "one is less than two")
    assert capsys.readouterr().out == "True: one is less than two.\n"
    with pytest.raises(AssertionError, match="Expected that two is less than one"):
        check(2 < 1, "two is less than one")


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.stem)
def test_a_tutorial_runs_and_what_it_claims_is_true(
    tutorial: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = NEEDS.get(tutorial.stem)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{tutorial.stem} needs {needed}, which is not installed")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tutorial), run_name="__main__")
    assert "True: " in capsys.readouterr().out
