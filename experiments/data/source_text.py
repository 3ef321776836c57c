"""Text that every Python brings along: the sources of its standard library, character by character."""

from __future__ import annotations

import string
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from experiments.data.image_data import ImageData
from sinkhorn_rebasin.errors import DataError

CHARACTERS = "\n" + string.printable[:94] + " "
VOCABULARY = len(CHARACTERS) + 1
"""The characters, and one token for every other."""

_TRAIN = """
argparse ast bdb calendar cmd codecs configparser contextlib copy csv dataclasses difflib dis doctest enum
fractions ftplib functools gettext heapq imaplib inspect ipaddress mailbox mimetypes optparse pdb pickle
platform plistlib pprint pydoc random shlex shutil smtplib socket statistics string subprocess tarfile
tempfile textwrap threading trace typing weakref
"""
TRAIN_MODULES = tuple(_TRAIN.split())
TEST_MODULES = ("glob", "shelve", "socketserver", "tokenize", "traceback", "uuid", "webbrowser")


def load_source_text(
    context: int = 64,
    train_modules: Sequence[str] = TRAIN_MODULES,
    test_modules: Sequence[str] = TEST_MODULES,
    folder: Path | None = None,
) -> ImageData:
    """Return windows of the standard library's sources; no test window is from a file that training sees.

    What stands in the place of images are tokens (N, context), and in that of labels, for each of them, the token
    that comes next. The text is that of the Python that runs, so its version belongs to every figure.

    Raises:
        DataError: a module is no file of the folder, or is shorter than one window.

    Example:
        >>> data = load_source_text(16, ["copy"], ["glob"])
        >>> bool((data.train_images[0, 1:] == data.train_labels[0, :-1]).all())
        True
        >>> decoded(data.test_images[0])
        '\"\"\"Filename glob'
    """
    folder = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    train, test = (
        torch.cat([_windows(folder / f"{name}.py", context) for name in modules])
        for modules in (train_modules, test_modules)
    )
    return ImageData(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:], VOCABULARY, "source text")


def encoded(text: str) -> Tensor:
    """Return one token a character; what is not in `CHARACTERS` is the last token.

    Example:
        >>> encoded("\\n0é").tolist() == [0, 1, VOCABULARY - 1]
        True
    """
    places = {character: place for place, character in enumerate(CHARACTERS)}
    return torch.tensor([places.get(character, VOCABULARY - 1) for character in text], dtype=torch.long)


def decoded(tokens: Tensor) -> str:
    """Return the text of tokens, a question mark where a character is not known."""
    return "".join(CHARACTERS[token] if token < len(CHARACTERS) else "?" for token in tokens.tolist())


def _windows(path: Path, context: int) -> Tensor:
    if not path.is_file():
        raise DataError(
            f"Expected the source of a module at {path.name} but got no such file in {path.parent.name}."
        )
    tokens = encoded(path.read_text(encoding="utf-8"))
    if len(tokens) <= context:
        raise DataError(f"Expected more than {context} characters in {path.name} but got {len(tokens)}.")
    return tokens.unfold(0, context + 1, context).contiguous()
