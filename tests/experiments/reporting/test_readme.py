from __future__ import annotations

from pathlib import Path

import pytest

from experiments.reporting.readme import REPOSITORY, has_markers, main, render
from experiments.reporting.receipts import write_receipt
from sinkhorn_rebasin.errors import DataError

SECTION = "<!-- results:demo -->\nold\n<!-- /results -->\n"
EMPTY = f"# Title\n{SECTION}after <!-- results:demo#extra -->\n<!-- /results -->\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    metrics = {"rows": [{"method": "naive", "barrier": 2.0}], "extra": [{"n": 64}], "scalar": 1}
    write_receipt(
        tmp_path / "experiments/results/demo", experiment="demo", config={}, metrics=metrics, seeds=[0]
    )
    return tmp_path


def test_sections_are_replaced_and_the_rest_is_kept(repository: Path) -> None:
    text = render(EMPTY, repository)
    assert "old" not in text
    assert "| naive | 2 |" in text
    assert "| 64 |" in text
    assert text.startswith("# Title\n<!-- results:demo -->\n|")
    assert "after <!-- results:demo#extra -->" in text
    assert render(text, repository) == text


@pytest.mark.parametrize("marker", ["missing", "demo#scalar", "demo#absent"])
def test_what_cannot_be_filled_is_an_error(repository: Path, marker: str) -> None:
    with pytest.raises(DataError, match="Expected"):
        render(f"<!-- results:{marker} -->\n<!-- /results -->", repository)


def test_check_tells_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("no tables")
    assert main(["--check", "--file", str(file)]) == 0
    assert file.read_text() == "no tables"


def test_the_tables_are_up_to_date() -> None:
    file = REPOSITORY / "RESULTS.md"
    if not file.is_file() or not has_markers(file.read_text(encoding="utf-8")):
        pytest.skip("RESULTS.md has no result markers")
    text = file.read_text(encoding="utf-8")
    assert render(text) == text, "run python -m experiments.readme"
