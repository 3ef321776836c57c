"""Leaving the global random states of torch, NumPy and Python as they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Whatever is drawn inside leaves the global random states of torch, NumPy and Python as they were."""
    # Networks draw from NumPy's global state, so that is what must be kept.
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


class RandomStream:
    """Random states that start as the global ones, go on from one use to the next, and leave those untouched.

    >>> stream, drawn = RandomStream(), []
    >>> for _ in range(2):
    ...     with stream.running():
    ...         drawn.append(torch.rand(()))
    >>> bool(drawn[0] == torch.rand(())), bool(drawn[1] == torch.rand(()))
    (True, True)
    """

    def __init__(self) -> None:
        self._states = _states()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Draw from this stream inside."""
        with untouched_randomness():
            python, numpy, cpu, cuda = self._states
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            torch.set_rng_state(cpu)
            torch.cuda.set_rng_state_all(cuda)
            try:
                yield
            finally:
                self._states = _states()


def _states() -> tuple[Any, Any, torch.Tensor, list[torch.Tensor]]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda  # noqa: NPY002
