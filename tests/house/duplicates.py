"""Duplicate runs of lines in a package, counted by pylint's ``duplicate-code``."""

from __future__ import annotations

import io
import json
import keyword
import shutil
import subprocess
import tempfile
import tokenize
from pathlib import Path

LINES = 6
# Pylint tells of runs that are longer than what it is given.
OPTIONS = (
    *(
        "--disable=all",
        "--enable=duplicate-code",
        f"--min-similarity-lines={LINES - 1}",
        "--output-format=json",
    ),
    *("--ignore-imports=y", "--ignore-docstrings=y", "--ignore-comments=y", "--persistent=n", "--rcfile="),
)


class MissingTool(RuntimeError):
    """Pylint is not there."""


def pylint_command(given: Path | None) -> str:
    """Find pylint.

    Raises:
        MissingTool: it is neither given nor on the path.
    """
    command = str(given.absolute()) if given is not None else shutil.which("pylint")
    if command is None or not Path(command).is_file():
        raise MissingTool(
            f"Expected pylint at {given or 'a place on PATH'} but got none. It is no requirement of this project: "
            "make an environment of its own with `python -m venv .venv-tools` and `.venv-tools/bin/pip install "
            "pylint`, and name it with `--pylint .venv-tools/bin/pylint`; or leave duplicates out with --quick."
        )
    return command


def same_text(root: Path, package: str, pylint: str) -> list[str]:
    """Find runs of at least six lines that stand in two files word for word."""
    done = subprocess.run(
        [pylint, *OPTIONS, "--ignore-signatures=n", package],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode & 32:  # how pylint says that it was used wrongly
        raise MissingTool(f"Expected pylint to count duplicates but got: {done.stderr.strip()[-300:]}")
    # The second to fourth line of a message name the files and lines: ==package.file:[20:31]
    messages = (item["message"] for item in json.loads(done.stdout or "[]"))
    return [
        " ~ ".join(line.strip("=") for line in message.splitlines() if line.startswith("=="))
        for message in messages
    ]


def same_shape(root: Path, package: str, pylint: str) -> list[str]:
    """Find runs of at least six lines that are alike but for the names and values in them.

    Each file is copied with every name replaced by one and the same, and each number and string by another; pylint
    then counts on the copy, whose lines stand where they stood.
    """
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted((root / package).rglob("*.py")):
            copy = Path(folder) / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(shape(file.read_text(encoding="utf-8")), encoding="utf-8")
        return same_text(Path(folder), package, pylint)


def shape(source: str) -> str:
    """Replace names, numbers and strings; imports and docstrings stay as they are, which pylint leaves out.

    Example:
        >>> shape("def area(width):  # a square\\n    return 2 * width")
        'def n(n):  # a square\\n    return 0 * n'
    """
    lines = source.splitlines(keepends=True)
    between = (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER)
    stand_ins, first, importing = [], True, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            first = True
            continue
        if token.type in between:
            continue
        if first:
            importing = token.string in ("import", "from")
        docstring = first and token.type == tokenize.STRING
        if not importing and not docstring and token.start[0] == token.end[0]:
            stand_ins.append((token.start[0] - 1, token.start[1], token.end[1], _replaced(token)))
        first = False
    for row, start, end, text in reversed(stand_ins):
        lines[row] = lines[row][:start] + text + lines[row][end:]
    return "".join(lines)


def _replaced(token: tokenize.TokenInfo) -> str:
    """Return what stands in for a token."""
    if token.type == tokenize.NAME and token.string not in (*keyword.kwlist, *keyword.softkwlist):
        return "n"
    if token.type == tokenize.NUMBER:
        return "0"
    return '""' if token.type == tokenize.STRING else token.string
