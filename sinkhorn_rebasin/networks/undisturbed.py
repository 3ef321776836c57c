"""One analysis of a network at a time in a process, and with the plain kernels where it is followed."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sinkhorn_rebasin.networks.randomness import untouched_randomness


class _Process:
    """Hold what the threads of a process share.

    This is a lock, and kernels that are switched off while anybody needs it.
    """

    def __init__(self) -> None:
        self._switched = ExitStack()
        self.begin()

    def begin(self) -> None:
        """Start without other threads.

        Those that hold locks do not go with a fork.
        """
        self._switched.close()
        self.analysis = threading.RLock()
        self._counting = threading.Lock()
        self._users = 0
        self._one_dnn = False

    def switch_off_fused_kernels(self) -> None:
        """Switch fused kernels off for the first user."""
        with self._counting:
            if self._users == 0:
                found = _set_fused_kernels(False, False)
                self._switched.callback(_set_fused_kernels, *found)
                self._one_dnn = found[1]
                self._switched.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._users += 1

    def computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operation that has been dispatched.

        Convolutions are several times slower without oneDNN. Once one is dispatched as such, it may have it back,
        unless another thread follows a network too.
        """
        if func is not _CONVOLUTION or not self._one_dnn or self._users != 1:
            return func(*args, **kwargs)
        torch._C._set_mkldnn_enabled(True)
        try:
            return func(*args, **kwargs)
        finally:
            torch._C._set_mkldnn_enabled(False)

    def let_go_of_fused_kernels(self) -> None:
        """Put fused kernels back after the last user.

        They are again as the first user found them.
        """
        with self._counting:
            self._users -= 1
            if self._users == 0:
                self._switched.close()


_CONVOLUTION = torch.ops.aten.convolution.default
_PROCESS = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PROCESS.begin)


def _set_fused_kernels(fast_path: bool, one_dnn: bool) -> tuple[bool, bool]:
    """Set two flags and return what they were.

    They are the whole process's.
    """
    found = torch.backends.mha.get_fastpath_enabled(), bool(torch.backends.mkldnn.enabled)
    torch.backends.mha.set_fastpath_enabled(fast_path)
    # This sets the one flag, and so warns of no accelerator that is not there.
    torch.backends.mkldnn.set_flags(one_dnn, _fp32_precision=None)
    return found


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute an operation dispatched inside of :func:`plain_operations`.

    It may have fused kernels again: which operation it is has been settled.

    >>> with plain_operations():
    ...     computed(torch.ops.aten.add.Tensor, (torch.ones(1), torch.ones(1)), {})
    tensor([2.])
    """
    return _PROCESS.computed(func, args, kwargs)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Wait until no other thread analyzes a network.

    Inside, the global random states are left as they are. A thread that is inside already need not wait. Plain runs
    of networks in other threads go on meanwhile.
    """
    with _PROCESS.analysis, untouched_randomness(forked=True):
        yield


@contextmanager
def collection_paused() -> Iterator[None]:
    """Hold off Python's collector of reference cycles.

    Following a network makes hundreds of thousands of small objects that live a moment. They would set off a look at
    all objects of the process, which may take as long as the rest. What is made and not needed is freed as ever.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def plain_operations() -> Iterator[None]:
    """Switch fused kernels off.

    Networks then dispatch the operations there are rules for. The switches belong to the process: networks that other
    threads run meanwhile run without fused kernels too.
    """
    _PROCESS.switch_off_fused_kernels()
    try:
        yield
    finally:
        _PROCESS.let_go_of_fused_kernels()
