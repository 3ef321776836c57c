"""Networks that are analysed in several threads at once."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.networks.undisturbed import plain_operations, undisturbed
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry

FLAGS: dict[str, tuple[Callable[[], bool], Callable[[bool], None]]] = {
    "mha": (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    "mkldnn": (
        lambda: torch.backends.mkldnn.enabled,
        lambda on: setattr(torch.backends.mkldnn, "enabled", on),
    ),
    "flash": (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "efficient": (
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ),
    "math": (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    "cudnn": (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
}
X = torch.linspace(-1, 1, 12).reshape(2, 6)


def flags() -> dict[str, bool]:
    """The switches of the process."""
    return {name: read() for name, (read, _) in FLAGS.items()}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def in_threads(*work: Callable[[], object]) -> None:
    """Run several things at once, each in a thread, and raise what they raise."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def again(work: Callable[[], object]) -> Callable[[], None]:
    return lambda: [work() for _ in range(3)] and None


@pytest.mark.parametrize("fast", [True, False])
def test_fused_kernels_are_as_before_after_discoveries_in_threads(fast: bool) -> None:
    nets, before = [mlp(), mlp()], flags()
    FLAGS["flash"][1](fast)
    try:
        found = flags()
        in_threads(*(again(lambda net=net: discover_symmetry(net, X)) for net in nets))  # type: ignore[misc]
        assert flags() == found
        in_threads(*(again(lambda net=net: SinkhornRebasin(net, net, X)) for net in nets))  # type: ignore[misc]
        assert flags() == found
    finally:
        FLAGS["flash"][1](before["flash"])


def test_interleaved_use_puts_back_what_the_first_found() -> None:
    before = flags()
    one, other = plain_operations(), plain_operations()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    inside = flags()
    other.__exit__(None, None, None)
    assert flags() == before
    assert inside == {name: name == "math" for name in FLAGS}


def test_precisions_of_one_dnn_are_left_alone() -> None:
    torch.backends.mkldnn.conv.fp32_precision, before = "ieee", torch.backends.mkldnn.conv.fp32_precision
    try:
        with plain_operations():
            assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before


def test_one_analysis_runs_at_a_time_and_may_call_another() -> None:
    inside, most = [0], []

    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            inside[0] += 1
            most.append(inside[0])
            output = super().forward(x)
            inside[0] -= 1
            return output

    nets = [nn.Sequential(Counting(6, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
    specs = [discover_symmetry(net, X) for net in nets]
    in_threads(
        lambda: discover_symmetry(nets[0], X),
        lambda: verify_symmetry(nets[1], specs[1], X),
        lambda: SinkhornRebasin(nets[2], nets[2], X, rescale=True),
    )
    assert set(most) == {1}
    with undisturbed():
        assert discover_symmetry(nets[0], X) == specs[0]


def test_random_numbers_drawn_meanwhile_do_not_repeat() -> None:
    net, spec = mlp(), discover_symmetry(mlp(), X)
    numbers: list[tuple[float, float, float]] = []
    working = threading.Event()
    working.set()

    def draw() -> None:
        while working.is_set():
            torch_number = float(torch.rand((), dtype=torch.float64))
            numbers.append((torch_number, random.random(), float(np.random.rand())))  # noqa: NPY002

    def work() -> None:
        try:
            for _ in range(4):
                discover_symmetry(net, X)
                verify_symmetry(net, spec, X)
        finally:
            working.clear()

    state = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        in_threads(draw, work)
    assert torch.equal(torch.get_rng_state(), state)
    for drawn in zip(*numbers, strict=True):
        assert len(set(drawn)) == len(drawn)


def test_the_random_state_is_as_before_when_all_threads_are_done() -> None:
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    nets, before = [mlp(), mlp()], states()
    in_threads(*(again(lambda net=net: SinkhornRebasin(net, net, X, rescale=True)) for net in nets))  # type: ignore[misc]
    assert states() == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_an_analysis_can_analyse() -> None:
    """A worker of a DataLoader that is started while another thread discovers."""
    net, before = mlp(), flags()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with undisturbed(), plain_operations():
            held.set()
            done.wait(30)

    def child() -> None:
        discover_symmetry(net, X)
        assert flags() == before

    def fork() -> None:
        held.wait(30)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(20)
        alive = process.is_alive()
        process.kill()
        done.set()
        assert not alive
        assert process.exitcode == 0

    in_threads(hold, fork)
