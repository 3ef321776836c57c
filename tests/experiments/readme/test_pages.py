from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.compare_methods.table import FIGURES
from experiments.readme.pages import PAGES, REPOSITORY, has_markers, main, render
from experiments.reporting.receipts import read_receipt, write_receipt
from sinkhorn_rebasin.errors import DataError

SECTION = "<!-- results:demo -->\nold\n<!-- /results -->\n"
EMPTY = f"# Title\n{SECTION}after <!-- results:demo#extra -->\n<!-- /results -->\n"
BARRIERS = {
    "naive": 2.0,
    "weight matching": 1.0,
    "published Sinkhorn": 0.75,
    "ours": 0.5,
    "ours, permutations alone": 0.25,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    results = tmp_path / "experiments/results"
    metrics = {"rows": [{"method": "naive", "barrier": 2.0}], "extra": [{"n": 64}], "scalar": 1}
    write_receipt(results / "demo", experiment="demo", config={}, metrics=metrics, seeds=[0])
    compared = {
        "title": "Digits",
        "rows": [
            {
                "method": method,
                "seeds": [0, 1],
                **dict.fromkeys(FIGURES.values(), barrier),
                "test_midpoint_accuracy": 0.5,
                "endpoint_accuracy": 0.875,
                "relative_change": 0.0,
            }
            for method, barrier in BARRIERS.items()
        ],
    }
    config = {"title": "Digits", "recipe": {"steps": 2000}, "seeds": [[0, 1], [2, 3]]}
    folder = results / "compared" / "digits"
    write_receipt(folder, experiment="compare_methods", config=config, metrics=compared, seeds=[0])
    (folder / "paths.png").write_bytes(b"")
    return tmp_path


def test_sections_are_replaced_and_the_rest_is_kept(repository: Path) -> None:
    text = render(EMPTY, repository)
    assert "old" not in text
    assert "| naive | 2 |" in text
    assert "| 64 |" in text
    assert text.startswith("# Title\n<!-- results:demo -->\n|")
    assert "after <!-- results:demo#extra -->" in text
    assert render(text, repository) == text


@pytest.mark.parametrize("count", [8, 9])
def test_many_commands_stand_in_the_receipt_alone(repository: Path, count: int) -> None:
    results, commands = repository / "experiments/results", [f"run {number}" for number in range(count)]
    options = {"config": {}, "metrics": {"rows": [{"n": 1}]}, "seeds": [0], "commands": commands}
    write_receipt(results / "demo", experiment="demo", **options)
    text = render(SECTION, repository)
    assert ("`run 7`" in text, "`run 0` and 8 more commands" in text) == (count == 8, count == 9)


def test_a_setting_is_a_section_with_four_figures_a_method(repository: Path) -> None:
    page = Path("experiments/RESULTS.md")
    text = render("<!-- settings:compared -->\n<!-- /settings -->", repository, page)
    assert "### Digits\n\n1 pair; accuracy of the networks 87.5 %." in text
    assert "| weight matching | 1.000 | 50.0 % | 1.000 | 1.0 |" in text
    assert "![paths](results/compared/digits/paths.png)" in text
    assert "([receipt](results/compared/digits/receipt.json))" in text
    assert "(experiments/results/" in render(text, repository)  # as a page at the root links it


def test_settings_stand_side_by_side_in_the_order_that_is_asked_for(repository: Path) -> None:
    results = repository / "experiments/results/compared"
    metrics = read_receipt(results / "digits")["metrics"]
    rows = [{**row, "test_barrier": row["test_barrier"] / 4} for row in metrics["rows"][:2]]
    wider = {"title": "Digits, wide", "rows": rows}
    write_receipt(results / "wide", experiment="compare_methods", config={}, metrics=wider, seeds=[0])
    text = render("<!-- across:compared/wide, compared/digits -->\n<!-- /across -->", repository)
    assert "| method | Digits, wide | Digits |" in text
    assert "| naive | 0.500 | 2.000 |" in text
    assert "| ours | – | 0.500 |" in text
    assert text.index("| ours, permutations alone |") < text.index("| ours |")
    accuracy = render("<!-- across:compared/wide#test_midpoint_accuracy -->\n<!-- /across -->", repository)
    assert "| naive | 0.500 |" in accuracy


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("", "| Digits | 2.000 | 0.750 (published Sinkhorn) | 0.750 | 0.500 |"),
        (
            "#repaired_barrier",
            "| 2.000 | 0.750 (published Sinkhorn) | 0.750 | 0.250 (ours, permutations alone) |",
        ),
    ],
)
def test_a_setting_is_one_row_of_the_lead(repository: Path, key: str, row: str) -> None:
    assert row in render(f"<!-- lead:compared{key} -->\n<!-- /lead -->", repository)


def test_a_configuration_is_a_row(repository: Path) -> None:
    text = render("<!-- config:compared/*#recipe.steps,seeds -->\n<!-- /config -->", repository)
    assert "| setting | recipe, steps | seeds |" in text
    assert "| Digits | 2,000 | 0 and 1; 2 and 3 |" in text


@pytest.mark.parametrize(
    "part",
    [
        "<!-- results:missing -->\n<!-- /results -->",
        "<!-- results:demo#scalar -->\n<!-- /results -->",
        "<!-- results:demo#absent -->\n<!-- /results -->",
        "<!-- settings:demo -->\n<!-- /settings -->",
        "<!-- lead:demo -->\n<!-- /lead -->",
        "<!-- config:missing/*#recipe.steps -->\n<!-- /config -->",
        "<!-- config:compared/*#recipe.absent -->\n<!-- /config -->",
    ],
)
def test_what_cannot_be_filled_is_an_error(repository: Path, part: str) -> None:
    with pytest.raises(DataError, match="Expected"):
        render(part, repository)


def test_check_tells_and_changes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for page in PAGES:
        (repository / page).write_text(EMPTY)
    arguments = ["--repository", str(repository)]
    assert main(["--check", *arguments]) == 1
    assert "out of date: README.md" in capsys.readouterr().out
    assert (repository / PAGES[0]).read_text() == EMPTY
    assert main(arguments) == 0
    assert main(["--check", *arguments]) == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_are_up_to_date(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert has_markers(text)
    assert render(text, page=Path(page)) == text, "run python -m experiments.readme"


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    file = REPOSITORY / page
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (file.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
