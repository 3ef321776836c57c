from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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
def test_nested_draws_change_nothing_in_the_outer_block(draw: Callable[[], float]) -> None:
    found = []
    for times in (0, 3):
        with untouched_randomness():
            draw()
            with untouched_randomness():
                [draw() for _ in range(times)]
            found.append(draw())
    assert found[0] == found[1]


@sources
def test_forked_numbers_follow_the_seed(draw: Callable[[], float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    found = []
    for seed in (1, 2, 1):
        with untouched_randomness():
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            with untouched_randomness(forked=True):
                found.append(draw())
            found.append(draw())
    assert found[0] == found[4] != found[2]
    assert len({*found}) == 4


@sources
def test_a_thread_that_draws_while_another_is_in_forked_blocks_never_gets_a_number_twice(
    draw: Callable[[], float],
) -> None:
    numbers: list[float] = []
    with ThreadPoolExecutor(1) as another:
        for _ in range(3):
            with untouched_randomness(forked=True):
                numbers += another.submit(lambda: [draw() for _ in range(5)]).result()
    numbers += [draw() for _ in range(5)]
    assert len(set(numbers)) == 20


@sources
def test_forked_blocks_of_equal_states_are_equal_in_a_process_of_one_thread(
    draw: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    found = []
    for _ in range(2):
        with untouched_randomness(forked=True):
            found.append([draw(), draw()])
    assert found[0] == found[1]


@sources
@pytest.mark.parametrize("forked", [False, True])
def test_threads_that_end_in_any_order_put_back_what_the_first_found(
    draw: Callable[[], float], forked: bool
) -> None:
    with untouched_randomness():
        expected = [draw(), draw()]
    with untouched_randomness():
        one, other, last = (untouched_randomness(forked=forked) for _ in range(3))
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
        for block in (one, other, last):
            block.__enter__()
        for block in (one, last, other):
            draw()
            block.__exit__(None, None, None)
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1] == after[1]
        assert all(np.array_equal(a, b) for a, b in zip(before[2], after[2], strict=True))
        assert [draw(), draw()] == expected


def test_a_generator_of_its_own_in_numpy_is_left_as_it_was() -> None:
    own = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        expected = np.random.RandomState(np.random.PCG64(0)).rand()
        with untouched_randomness(forked=True):
            np.random.rand()  # noqa: NPY002
        assert np.random.rand() == expected  # noqa: NPY002
    finally:
        np.random.set_bit_generator(own)


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
