"""Make the environment of the family ``packages``: a folder of its own, every version pinned, nothing compiled.

    python -m experiments.zoo.packages_environment
    python -m experiments.zoo.packages_environment --folder .venv-packages

PyTorch and what this repository needs come first, with the versions of ``constraints.txt``. The packages come with
``--no-deps``, each one pinned in ``packages_requirements.txt`` with what it needs: none may bring another PyTorch.
"""

from __future__ import annotations

import argparse
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("packages_requirements.txt")


def commands(python: Path, requirements: Path = REQUIREMENTS) -> list[list[str]]:
    """Return the calls of pip, in order."""
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    return [
        [*pip, "--constraint", "constraints.txt", "torch==2.13.0", "--editable", "."],
        [*pip, "--no-deps", "--requirement", str(requirements)],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".venv-packages")
    python = made(parser.parse_args(arguments).folder, REQUIREMENTS)
    print(f"Ready: python -m experiments.zoo --families packages --packages-python {python}")


def made(folder: Path, requirements: Path) -> Path:
    """Make the environment of a list of packages and return its Python."""
    venv.create(folder.absolute(), with_pip=True)
    python = folder.absolute() / "bin" / "python"
    for command in commands(python, requirements):
        subprocess.run(command, cwd=REPOSITORY, check=True)
    return python


if __name__ == "__main__":
    main()
