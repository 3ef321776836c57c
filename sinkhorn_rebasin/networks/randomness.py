"""Leaving the global random states of torch, NumPy and Python as they are."""

from __future__ import annotations

import hashlib
import random
import threading
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def _accelerator() -> Any:
    """Return torch's module of the accelerator of this process.

    None where there is no accelerator.
    """
    if not hasattr(torch, "accelerator"):  # before PyTorch 2.6
        return torch.cuda if torch.cuda.is_available() else None
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if device is None else torch.get_device_module(device)


def _on_device(number: int) -> AbstractContextManager[Any]:
    """Make a device the current one.

    Some accelerators have but one.
    """
    accelerator = _accelerator()
    return accelerator.device(number) if hasattr(accelerator, "device") else nullcontext()


class _States(NamedTuple):
    """Hold the global random states of a process.

    Those of an accelerator are one a device.
    """

    python: Any
    numpy: Any
    cpu: Tensor
    devices: list[Tensor]

    @classmethod
    def found(cls) -> _States:
        """Read the states."""
        # Networks draw from NumPy's global state, so that is what must be kept.
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002
        return cls(random.getstate(), numpy, torch.get_rng_state(), cls._of_devices())

    @staticmethod
    def _of_devices() -> list[Tensor]:
        accelerator = _accelerator()
        count = 0 if accelerator is None else accelerator.device_count()
        return [accelerator.get_rng_state(number) for number in range(count)]

    def put_back(self) -> None:
        """Make these the states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        for number, state in enumerate(self.devices):
            _accelerator().set_rng_state(state, number)

    @classmethod
    def forked(cls, salt: int) -> _States:
        """Set states that follow from earlier ones.

        They follow from those found and a number. Returns those found.

        Each is set right after it is read: what another thread draws in between will be drawn again.
        """
        now = cls.found()
        python_seed = _seed(salt, array("L", now.python[1]).tobytes())
        numpy_seed = _seed(salt, _bytes(now.numpy)) % 2**32
        cpu_seed = _seed(salt, now.cpu.numpy().tobytes())
        device_seeds = [_seed(salt, state.cpu().numpy().tobytes()) for state in now.devices]
        python = random.getstate()
        random.seed(python_seed)
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002
        if numpy["bit_generator"] == "MT19937":
            np.random.seed(numpy_seed)  # noqa: NPY002
        cpu = torch.get_rng_state()
        torch.default_generator.manual_seed(cpu_seed)
        devices = cls._of_devices()
        for number, seed in enumerate(device_seeds):
            with _on_device(number):
                _accelerator().manual_seed(seed)
        return cls(python, numpy, cpu, devices)

    def same(self, other: _States) -> bool:
        """Tell whether nothing was drawn between the two."""
        return (
            self.python == other.python
            and _bytes(self.numpy) == _bytes(other.numpy)
            and all(map(torch.equal, (self.cpu, *self.devices), (other.cpu, *other.devices)))
        )


def _bytes(state: dict[str, Any]) -> bytes:
    """Return NumPy's random state as bytes.

    Of a generator that was put in the place of its own, which is not forked, they are words.
    """
    numbers = state["state"]
    if state["bit_generator"] != "MT19937":
        return repr(numbers).encode()
    return bytes(numbers["key"].tobytes()) + int(numbers["pos"]).to_bytes(2, "little")


def _seed(salt: int, state: bytes) -> int:
    return int.from_bytes(
        hashlib.blake2b(state + salt.to_bytes(8, "little"), digest_size=7).digest(), "little"
    )


class _Blocks:
    """Note the blocks that threads are in.

    It also notes the states that each found. The last to begin puts back what it found. One that ends earlier leaves
    that to the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[object, _States] = {}
        self._salt = 0

    def begin(self, forked: bool) -> object:
        """Keep the global states and set others.

        The others follow from them.
        """
        ticket = object()
        with self._lock:
            self._found[ticket] = _States.forked(self._salt) if forked else _States.found()
        return ticket

    def end(self, ticket: object) -> None:
        """Restore the global states.

        Some block may still go on. Then the states are put back when the next block ends.
        """
        with self._lock:
            later = list(self._found)
            after = later[later.index(ticket) + 1 :]
            found = self._found.pop(ticket)
            if after:
                self._found[after[0]] = found
            else:
                found.put_back()

    def renew(self) -> None:
        """Let equal states fork into others from now on."""
        with self._lock:
            self._salt += 1


_BLOCKS = _Blocks()


@contextmanager
def untouched_randomness(*, forked: bool = False) -> Iterator[None]:
    """Leave the global random states untouched.

    They are those of torch, NumPy and Python, whatever is drawn inside.

    Threads that are inside at once do not undo each other: the last to leave puts back what the first found.

    Note:
        The states belong to the process. Another thread that draws meanwhile draws from them too, and gets the same
        numbers again when they are put back; a forked block spares it that.

    Args:
        forked: draw from other states inside, which follow from those outside, so that no thread gets a number
            twice. The same seed gives the same numbers inside, unless other threads drew inside earlier blocks.
    """
    ticket, alone = _BLOCKS.begin(forked), threading.active_count() == 1
    inside = _States.found() if forked else None
    try:
        yield
    finally:
        alone &= threading.active_count() == 1
        if inside is not None and not alone and not inside.same(_States.found()):
            _BLOCKS.renew()
        _BLOCKS.end(ticket)


class RandomStream:
    """Run with random states of its own.

    They start as the global ones, go on from one use to the next, and leave those untouched.

    >>> stream, drawn = RandomStream(), []
    >>> for _ in range(2):
    ...     with stream.running():
    ...         drawn.append(torch.rand(()))
    >>> bool(drawn[0] == torch.rand(())), bool(drawn[1] == torch.rand(()))
    (True, True)
    """

    def __init__(self) -> None:
        self._states = _States.found()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Draw from this stream inside."""
        with untouched_randomness():
            self._states.put_back()
            try:
                yield
            finally:
                self._states = _States.found()
