from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sinkhorn_rebasin.networks.randomness import RandomStream, untouched_randomness


def numpy_number() -> float:
    """From NumPy's global state."""
    return float(np.random.rand())  # noqa: NPY002


sources = pytest.mark.parametrize("draw", [random.random, numpy_number, lambda: float(torch.rand(()))])


@sources
def test_what_is_drawn_inside_is_drawn_again_outside(draw: Callable[[], float]) -> None:
    with untouched_randomness():
        inside = [draw(), draw()]
    assert [draw(), draw()] == inside


@sources
def test_a_stream_goes_on_whatever_is_drawn_between(draw: Callable[[], float]) -> None:
    with untouched_randomness():
        expected = [draw() for _ in range(3)]
    stream, drawn = RandomStream(), []
    for _ in range(3):
        with stream.running():
            drawn.append(draw())
        draw()
    assert drawn == expected


@sources
def test_a_stream_starts_as_the_global_state(draw: Callable[[], float]) -> None:
    stream, drawn = RandomStream(), []
    for _ in range(3):
        with stream.running():
            drawn.append(draw())
    assert [draw() for _ in range(3)] == drawn


@sources
def test_a_stream_survives_an_error(draw: Callable[[], float]) -> None:
    stream = RandomStream()
    with contextlib.suppress(KeyError), stream.running():
        first = draw()
        raise KeyError
    with stream.running():
        second = draw()
    assert [draw(), draw()] == [first, second]
