"""The figures of the house, on a package small enough to count by hand."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.house.duplicates import MissingTool, pylint_command, same_shape, same_text, shape
from tests.house.figures import HERE, main, prose, structure
from tests.house.import_graph import NAME
from tests.house.prose import begins_with_verb

SOURCE = '''
class Box:
    """Holds units that move together."""

    def open(self):
        """Name of the box."""
        def inside(): pass

    def close(self): pass

    def _lock(self): pass

    def __len__(self): return 0


def find(units):
    """Find the units.

    Names of units are no first line.
    """


async def wait(): pass
'''


def tree(folder: Path, **files: str) -> Path:
    """A checkout with these files in its package."""
    for name, source in files.items():
        file = folder / NAME / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    return folder


def test_docstrings_are_counted(tmp_path: Path) -> None:
    figures = prose(tree(tmp_path, box=SOURCE, _hidden="def f(): pass\n"))
    assert figures["first lines of docstrings"] == "3"
    assert figures["median words"] == "4"  # 5, 4 and 3
    assert figures["begin with a verb"] == "67%"
    assert figures["begin with a verb, functions alone"] == "50%"
    missing = [place.split()[-1] for place in figures["public functions without a docstring"]]
    assert missing == ["f", "close", "wait"]  # a file's own underscore hides no function of a package


@pytest.mark.parametrize(
    ("line", "of_class", "verb"),
    [
        ("Find the units.", False, True),
        ("`Find` the units.", False, True),
        ("Finds the units.", False, False),
        ("Finds the units.", True, True),
        ("Copies what it is given.", True, True),
        ("Name of a group.", False, False),
        ("Order, as a list.", False, False),
        ("Labels that differ.", True, False),
        ("Whether it moves.", False, False),
        ("", False, False),
    ],
)
def test_a_first_line_begins_with_a_verb_or_not(line: str, of_class: bool, verb: bool) -> None:
    assert begins_with_verb(line, of_class) == verb


def test_structure_is_counted(tmp_path: Path) -> None:
    circle = {"a": f"from {NAME} import b\n", "b": f"def f():\n    from {NAME} import a\n"}
    checkout = tree(
        tmp_path, **circle, **{"symmetry/__init__": "", "symmetry/loose": "", "symmetry/rules/one": ""}
    )
    (tmp_path / "tests").mkdir()
    rules = '"""Rules."""\nLAYERS = [["errors"], ["matching.base", "rebasin"]]\n'
    (tmp_path / "tests" / "test_house.py").write_text(rules, encoding="utf-8")
    assert structure(checkout) == {
        "circles among files": [f"{NAME}.a -> {NAME}.b"],
        "single files in the folder order": ["matching.base"],
        "loose files in symmetry": ["loose.py"],
    }


def test_a_shape_keeps_lines_and_grammar() -> None:
    source = (HERE / NAME / "errors.py").read_text(
        encoding="utf-8"
    ) + "match x:\n    case f(a=1, b=2): y: int = 'z'\n"
    assert shape(source).count("\n") == source.count("\n")
    ast.parse(shape(source))
    assert (
        shape('"""Doc."""\nimport os\nx = f(y, "z", key=1)\n') == '"""Doc."""\nimport os\nn = n(n, "", n=0)\n'
    )


def test_duplicates_are_counted(tmp_path: Path) -> None:
    if shutil.which("pylint") is None:
        pytest.skip("pylint is not installed; it is no requirement")
    lines = [f"    x = first({number}, y)\n" for number in range(6)]
    first = "def f(y):\n" + "".join(lines)
    renamed = first.replace("first", "second").replace("x", "other")
    checkout = tree(tmp_path, __init__="", one=first, two=first.replace("def f", "def g"), three=renamed)
    pylint = pylint_command(None)
    assert len(same_text(checkout, NAME, pylint)) == 1
    assert "three" in same_shape(checkout, NAME, pylint)[0]


def test_a_missing_tool_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingTool, match="pip install pylint"):
        pylint_command(tmp_path / "pylint")
    with pytest.raises(SystemExit):
        main(
            [
                "--tree",
                str(tree(tmp_path, one='def f():\n    """Find it."""\n')),
                "--pylint",
                "nowhere/pylint",
            ]
        )
    assert "pip install pylint" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["--tree", str(tmp_path / "nothing")])
    assert f"expected a checkout with {NAME}" in capsys.readouterr().err
