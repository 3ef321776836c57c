"""Where the time of discovery goes: shares of the processor's time, sampled while it runs."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

import sinkhorn_rebasin
from sinkhorn_rebasin import discover_symmetry

# The innermost frame that lies in one of these files or folders of the package says what it is.
_PARTS = {
    "symmetry/labels/": "labels and relations",
    "symmetry/rules/": "labels and relations",
    "symmetry/tracing/": "labels and relations",
    "symmetry/solving/": "solve",
    "symmetry/spec_building.py": "solve",
    "permutations/": "solve",
    "networks/copying.py": "copies",
    "networks/module_shells.py": "copies",
    "networks/redirection.py": "copies",
    "networks/reachable.py": "copies",
    "networks/shared_memory.py": "copies",
    "networks/undisturbed.py": "runs",
    "networks/observed_run.py": "runs",
    "networks/write_protection.py": "runs",
    "networks/value_reads.py": "runs",
    "networks/uncompiled.py": "runs",
    "networks/lending.py": "runs",
}
SHARES = ("runs", "labels and relations", "solve", "copies", "other")
_PACKAGE = f"{Path(sinkhorn_rebasin.__file__).parent}/"
_INTERVAL = 0.002


def shares(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Discover the symmetries once and return the share of each part, with the seconds of all."""
    with _sampled() as found:
        began = time.process_time()
        discover_symmetry(model, inputs)
        seconds = time.process_time() - began
    total = sum(found.values()) or 1.0
    return {"seconds": seconds} | {part: found[part] / total for part in SHARES}


@contextmanager
def _sampled() -> Iterator[defaultdict[str, float]]:
    """Look at the stack every few milliseconds of the processor's time, and count the time since the last look."""
    found: defaultdict[str, float] = defaultdict(float)
    last = time.process_time()

    def look(_: int, frame: FrameType | None) -> None:
        """Count the time since the last look for the part that runs now."""
        nonlocal last
        now = time.process_time()
        found[part_of(frame)] += now - last
        last = now

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def part_of(frame: FrameType | None) -> str:
    """Name the part of discovery that a frame belongs to."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            inside = file.removeprefix(_PACKAGE)
            for place, part in _PARTS.items():
                if inside.startswith(place):
                    return part
        frame = frame.f_back
    return "other"
