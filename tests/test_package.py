"""The package as a whole: what importing it pulls in, and its public names."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import sinkhorn_rebasin

SOURCE = Path(sinkhorn_rebasin.__file__)


HEAVY = {
    *("lightning", "matplotlib", "networkx", "ot", "rich", "torchmetrics"),
    *("jsonargparse", "transformers", "yaml"),
}


def test_importing_pulls_in_nothing_heavy() -> None:
    """Statement by statement in one process, as each process that imports torch takes a second or two."""
    statements = (
        "import sinkhorn_rebasin",
        "from sinkhorn_rebasin import SinkhornRebasin, MidpointLoss, evaluate_path",
        "import sinkhorn_rebasin.activations",
    )
    told = f"print(sorted({HEAVY} & set(sys.modules)))"
    code = "\n".join(["import sys", *(f"{statement}; {told}" for statement in statements)])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]"] * len(statements)


def test_every_name_of_the_table_of_contents_stands_once() -> None:
    imports = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.ImportFrom)]
    names = [alias.asname for node in imports if node.module != "typing" for alias in node.names]
    assert len(names) == len(set(names)) > 40
    for name in names:
        assert name in dir(sinkhorn_rebasin)


@pytest.mark.parametrize("folder", ["front", "metrics", "plots", "training"])
def test_folders_that_need_more_are_loaded_when_used(folder: str) -> None:
    assert getattr(sinkhorn_rebasin, folder).__name__ == f"sinkhorn_rebasin.{folder}"
    assert folder in dir(sinkhorn_rebasin)


@pytest.mark.parametrize("name", ["AlignmentResult", "Recipe", "align"])
def test_the_front_door_is_loaded_when_used(name: str) -> None:
    assert getattr(sinkhorn_rebasin, name) is getattr(sinkhorn_rebasin.front, name)
    assert name in dir(sinkhorn_rebasin)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sinkhorn_rebasin.no_such_name


def test_the_citation_is_of_this_version() -> None:
    import yaml

    root = SOURCE.parents[1]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == sinkhorn_rebasin.__version__
    assert citation["references"][0]["title"] in (root / "README.md").read_text(encoding="utf-8").replace(
        "\n", " "
    )


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sinkhorn_rebasin.cli.main import main

    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["sinkhorn_rebasin", "--help"])
    monkeypatch.delitem(sys.modules, "sinkhorn_rebasin.__main__", raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("sinkhorn_rebasin", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out == told
    assert told.startswith("usage: sinkhorn-rebasin")
