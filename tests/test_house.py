"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.import_graph import circles, import_graph

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sinkhorn_rebasin"
NAME = "sinkhorn_rebasin"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = (PACKAGE, ROOT / "experiments", ROOT / "tests")

# A file may import from files of lower layers and from its own; two folders on one layer do not know each other.
LAYERS = [
    ["errors", "_typing", "shown"],
    ["networks"],
    ["assignment", "permutations"],
    ["symmetry", "files"],
    ["connectivity"],
    ["activations", "curvature"],
    ["losses"],
    ["metrics", "landscape"],
    ["matching"],
    ["rebasin"],
    ["merging"],
    ["training"],
    ["plots"],
    ["front"],
    ["carrying"],
    ["cli"],
    ["__main__"],
]
# These know nothing of networks.
ALONE = ("assignment", "permutations")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "util", "helper", "misc"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 60


def module_name(file: Path) -> str:
    """Dotted name inside the package, without its own name."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(module: str) -> tuple[int, str] | None:
    """Number and name of the layer of a module; the most specific entry counts."""
    found = [
        (number, name)
        for number, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    return max(found, key=lambda item: len(item[1]), default=None)


def imports_of(file: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, and where; imports for type checking are left out."""
    tree = ast.parse(file.read_text())
    only_types = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for statement in test.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if is_module(full) else str(node.module)), node.lineno


def is_module(dotted: str) -> bool:
    """Whether a dotted name is a file or folder of this package."""
    path = ROOT.joinpath(*dotted.split("."))
    return dotted.startswith(NAME) and (path.with_suffix(".py").exists() or path.is_dir())


def wrong_imports(file: Path) -> Iterator[str]:
    """Imports of a file that lead to its own layer or a higher one."""
    module = module_name(file)
    own = layer_of(module)
    if not module:
        return  # What the package offers comes from all of its folders.
    if own is None:
        yield f"{module} has no layer: add it to LAYERS"
        return
    for imported, line in imports_of(file):
        other = layer_of(imported.removeprefix(NAME + "."))
        if not imported.startswith(NAME + "."):
            continue
        if other is None:
            yield f"{module}:{line} imports {imported}, which has no layer"
            continue
        sibling = own == other
        if not (other[0] < own[0] or sibling):
            yield f"{module}:{line} must not import {imported}"
        if own[1] in ALONE and not sibling and other[0] != 0:
            yield f"{module}:{line} must import only errors and types, not {imported}"


def test_imports_go_one_way() -> None:
    offenders = [offender for file in FILES for offender in wrong_imports(file)]
    assert not offenders, "\n".join(offenders)


def test_no_file_imports_itself_in_a_circle(tmp_path: Path) -> None:
    assert not circles(import_graph(ROOT))  # lazy imports and those for type checking count
    (tmp_path / NAME).mkdir()
    for one, other in (("first", "second"), ("second", "third"), ("third", "first"), ("fourth", "first")):
        lazy = f"def f():\n    from {NAME} import {other}\n"
        (tmp_path / NAME / f"{one}.py").write_text(lazy)
    assert circles(import_graph(tmp_path)) == [[f"{NAME}.{name}" for name in ("first", "second", "third")]]


def test_only_training_imports_lightning() -> None:
    offenders = []
    for file in FILES:
        roots = {imported.split(".")[0] for imported, _ in imports_of(file)}
        above = {"tests", "experiments"} | (
            set() if module_name(file).startswith("training") else {"lightning", "pytorch_lightning"}
        )
        offenders += [f"{module_name(file)} imports {root}" for root in sorted(roots & above)]
    assert not offenders, "\n".join(offenders)


def test_experiments_leave_the_tests_alone() -> None:
    # The zoo and the random networks of the test suite are measured as families; they are written down only once.
    found = {
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "experiments").rglob("*.py"))
        for imported, _ in imports_of(file)
        if imported.split(".")[0] == "tests"
    }
    assert found == {"experiments/zoo/own_models.py", "experiments/zoo/random_models.py"}


def test_no_drawer_for_everything() -> None:
    offenders = [
        module_name(file)
        for file in FILES
        if FORBIDDEN_NAMES & set(file.relative_to(PACKAGE).with_suffix("").parts)
    ]
    assert not offenders, "\n".join(offenders)


def test_the_package_prints_nothing() -> None:
    offenders = [
        f"{module_name(file)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not offenders, "\n".join(offenders)


def test_files_are_short() -> None:
    files = sorted(file for folder in FOLDERS for file in folder.rglob("*.py"))
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert {
        "tests/test_house.py",
        "experiments/reporting/receipts.py",
        f"{NAME}/rebasin/module.py",
    } <= lines.keys()
    assert not {name: length for name, length in lines.items() if length > LONGEST_FILE}


def test_functions_are_short() -> None:
    offenders = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1 - docstring_lines(node)
                if length > LONGEST_FUNCTION:
                    offenders.append(f"{module_name(file)}:{node.lineno} {node.name} has {length} lines")
    assert not offenders, "\n".join(offenders)


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's docstring, which do not count."""
    if ast.get_docstring(node) is None:
        return 0
    return node.body[0].end_lineno - node.body[0].lineno + 1


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_linters_and_types_pass(command: list[str]) -> None:
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed; it comes with the extra 'test'")
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_can_be_broken(tmp_path: Path) -> None:
    assert layer_of("matching.weight_matching") == (8, "matching")
    assert layer_of("rebasin.module") == (9, "rebasin")
    assert layer_of("symmetry.rules.pooling") == (3, "symmetry")
    assert layer_of("nowhere") is None
    file = tmp_path / "one.py"
    file.write_text(
        "from sinkhorn_rebasin import errors\nimport lightning.pytorch as pl\n"
        "if TYPE_CHECKING:\n    import matplotlib\ndef f():\n"
        "    from sinkhorn_rebasin.symmetry.rules import find_rule\n"
    )
    assert list(imports_of(file)) == [
        ("sinkhorn_rebasin.errors", 1),
        ("lightning.pytorch", 2),
        ("sinkhorn_rebasin.symmetry.rules", 6),
    ]
