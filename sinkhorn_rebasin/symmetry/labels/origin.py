"""Name the place in the network's code of an operation."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """Hold an operation's name, module, file and line."""

    operation: str
    module: str = ""
    file: str = ""
    line: int = 0

    @property
    def source(self) -> str:
        """Return the relative file and line, empty when unknown."""
        return f"{relative_file(self.file)}:{self.line}" if self.file else ""


@lru_cache(maxsize=1024)
def relative_file(file: str) -> str:
    """Strip the import folder from a path.

    >>> import torch
    >>> relative_file(torch.nn.modules.linear.__file__)
    'torch/nn/modules/linear.py'
    >>> relative_file("<stdin>"), relative_file("/nowhere/notebook.py")
    ('<stdin>', 'notebook.py')
    """
    if file.startswith("<"):
        return file
    path = Path(os.path.abspath(file))
    entries = [Path(os.path.abspath(entry)) for entry in sys.path]
    holding = [entry for entry in entries if len(entry.parts) > 1 and path.is_relative_to(entry)]
    if holding:
        return path.relative_to(max(holding, key=lambda entry: len(entry.parts))).as_posix()
    packages = [folder for folder in path.parents if (folder / "__init__.py").exists()]
    return path.relative_to(packages[-1].parent if packages else path.parent).as_posix()
