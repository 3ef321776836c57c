"""Where in the network's code an operation was called."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.symmetry.labels.origin import Origin

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")
_MODULES = os.path.join(_TORCH, "nn", "modules", "")
_OWN = os.path.join(str(Path(__file__).parents[2]), "")
_STANDARD = os.path.join(sysconfig.get_paths()["stdlib"], "")
_ENTRY: CodeType = run_at.__code__
_FRAMES_OF_THE_TRACE = 4


class CallSites:
    """Find origins in the frames of the running network.

    Note:
        - The line is that of the innermost frame outside PyTorch, this package and the standard library.
        - Without such a frame, it is that of PyTorch's innermost module.
        - The module is the innermost one that a frame is a method of.
    """

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        # Code objects are kept with what is known of them, since their ids are only theirs while they live.
        self._seen: dict[int, tuple[CodeType, str, str | None]] = {}

    def follow(self, model: nn.Module) -> None:
        """Name the modules of a network from now on."""
        self._paths |= {id(module): name for name, module in model.named_modules()}

    def here(self, operation: str) -> Origin:
        """Return the origin of the operation dispatched right now."""
        frame: FrameType | None = sys._getframe(_FRAMES_OF_THE_TRACE)
        place: FrameType | None = None
        library: FrameType | None = None
        module: str | None = None
        while frame is not None and frame.f_code is not _ENTRY:
            known = self._seen.get(id(frame.f_code))
            if known is None:
                known = self._seen[id(frame.f_code)] = (frame.f_code, *_about(frame.f_code))
            _, kind, owner = known
            if kind == "model":
                place = place or frame
            elif kind == "module":
                library = library or frame
            if module is None and owner is not None:
                module = self._paths.get(id(frame.f_locals.get(owner)))
            if place is not None and module is not None:
                break
            frame = frame.f_back
        place = place or library
        if place is None:
            return Origin(operation, module or "")
        return Origin(operation, module or "", place.f_code.co_filename, place.f_lineno)


def _about(code: CodeType) -> tuple[str, str | None]:
    """Tell whose code this is, and its first argument."""
    file = code.co_filename
    standard = file.startswith(_STANDARD) and "-packages" not in file
    if file.startswith(_MODULES):
        kind = "module"
    elif file.startswith((_TORCH, _OWN, "<frozen ")) or standard:
        kind = "library"
    else:
        kind = "model"
    # Calls of a module pass through PyTorch's own method of modules: frames of this package need no look.
    named = code.co_argcount and not file.startswith(_OWN)
    return kind, code.co_varnames[0] if named else None
