"""Which file of the package imports which, lazy and typing-only imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

NAME = "sinkhorn_rebasin"


def module_name(file: Path, root: Path) -> str:
    """Dotted name of a file, the package's own name first."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules(root: Path) -> dict[str, Path]:
    """Files of the package below a folder, by dotted name."""
    return {module_name(file, root): file for file in sorted((root / NAME).rglob("*.py"))}


def imports_of(file: Path, known: set[str]) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, with the line: a file of the package, or the name as it stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in known else str(node.module)), node.lineno


def import_graph(root: Path) -> dict[str, set[str]]:
    """Imports among the files of the package; what a folder's ``__init__`` hands on counts as the folder."""
    files = modules(root)
    return {
        module: {imported for imported, _ in imports_of(file, set(files)) if imported in files} - {module}
        for module, file in files.items()
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files that import each other, over however many steps."""
    names = sorted(graph)
    place = {name: index for index, name in enumerate(names)}
    edges = [(place[one], place[other]) for one, others in graph.items() for other in others]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    matrix = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    count, component = connected_components(matrix, directed=True, connection="strong")
    found = [[name for name in names if component[place[name]] == number] for number in range(count)]
    return [circle for circle in found if len(circle) > 1]
