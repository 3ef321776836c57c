"""Make the environment of this experiment: a folder of its own, every version pinned, nothing compiled.

    python -m experiments.real_networks.environment
    python -m experiments.real_networks.environment --folder .venv-real

PyTorch and what this repository needs come first. The packages come with ``--no-deps``, each one pinned in
``requirements.txt`` with what its networks need.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.zoo.packages_environment import REPOSITORY, made

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".venv-real")
    python = made(parser.parse_args(arguments).folder, REQUIREMENTS)
    print(f"Ready: {python} -m experiments.real_networks")


if __name__ == "__main__":
    main()
