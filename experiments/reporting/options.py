"""The options that experiments share."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser_of(description: str | None, setting: str, out: str) -> argparse.ArgumentParser:
    """Return a parser of a setting, the number of its pairs, folders and threads.

    Args:
        description: of the experiment.
        setting: the one that is run when none is named.
        out: the folder of results when none is named.

    Example:
        >>> parser_of("Compare.", "digits_mlp", "runs/masks").parse_args(["--pairs", "2"]).pairs
        2
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", nargs="?", default=setting, help="a name, or a file of one's own")
    parser.add_argument("--pairs", type=int, default=None, help="those of the setting without it")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("runs/endpoints"), help="trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser
