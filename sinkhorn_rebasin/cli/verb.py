"""What a verb of the command is, and the options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Options: TypeAlias = Any
"""What was asked for: one attribute an option."""

MODEL_HELP = (
    "a Hugging Face folder, timm:NAME:FILE, torchvision:NAME:FILE, or package.module:factory[:FILE] "
    "with FILE .safetensors or .pt"
)
DATA_HELP = (
    "package.module:function that returns batches, or a folder of .safetensors or .npz files, one a batch"
)


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Attributes:
        name: as it is typed.
        purpose: what it does, in one sentence.
        example: one call of it.
        add_options: adds its options to a parser.
        run: does it.
        positional: names of its positional options, which a file of settings may give too.
        required: names of options that it cannot do without.
        settle: brings options that stand for each other into one form, once files of settings are read.
    """

    name: str
    purpose: str
    example: str
    add_options: Callable[[Any], None]
    run: Callable[[Options], None]
    positional: tuple[str, ...]
    required: tuple[str, ...] = ()
    settle: Callable[[Options], None] | None = None


def add_models(parser: Any, *names: str) -> None:
    """Add positional options for models."""
    for name, letter in zip(names, "AB" if len(names) > 1 else ["MODEL"], strict=False):
        parser.add_argument(name, metavar=letter, nargs="?", type=str, help=MODEL_HELP)


def add_inputs(parser: Any) -> None:
    """Add the option for example inputs."""
    parser.add_argument(
        "--inputs",
        type=str,
        metavar="module:function",
        help="function that returns example inputs; without it they come from the data, or from the model's config",
    )


def add_ignore(parser: Any) -> None:
    """Add the option for layers that are kept apart."""
    parser.add_argument(
        "--ignore",
        type=str,
        nargs="+",
        metavar="LAYER",
        help="layers that each model keeps for itself, by name or pattern; last layers of other shapes are found",
    )


def add_output(parser: Any, metavar: str) -> None:
    """Add the options for what is written."""
    parser.add_argument("--out", type=str, metavar=metavar, help="what is written")
    parser.add_argument("--force", action="store_true", help="replace what is there")


def add_data(parser: Any, name: str, purpose: str) -> None:
    """Add an option for data."""
    parser.add_argument(name, type=str, metavar="DATA", help=f"{purpose}: {DATA_HELP}")
