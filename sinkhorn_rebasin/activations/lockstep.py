"""Several runs of Python code that go on together from one meeting point to the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Semaphore
from typing import Any, TypeAlias

import torch

Meet: TypeAlias = Callable[[Hashable, Any], Any]
"""Called by a run at a meeting point with its key and a value; returns what was decided there."""
Run: TypeAlias = Callable[[Meet], None]
Decide: TypeAlias = Callable[[Any, Sequence[Any]], Any]
"""Key and values of all runs that came to this point, in the order of the runs, to what each of them is told."""


class _Cancelled(BaseException):
    """End a run whose result nobody wants.

    It is no ``Exception``: no handler for errors of a network must stop it.
    """


def in_lockstep(runs: Sequence[Run], points: Sequence[Hashable], decide: Decide) -> bool:
    """Take all runs from meeting point to meeting point.

    What is decided there holds for all of them. One run goes on at a time, in a thread of its own, and hands over at
    each point: the order of work is always the same. A run may leave out points. A single run has no thread.

    Args:
        runs: each is called with a function that it calls at its meeting points.
        points: the keys of all meeting points, in the order in which they are decided.
        decide: called once for each point that a run comes to, when all runs wait there or at later ones.

    Returns:
        Whether all runs ended; false as soon as one comes to a point that was decided, and the rest is not run. Also
        false where the system has not as many threads.

    Example:
        >>> seen = []
        >>> runs = [lambda meet, x=x: seen.append(meet("sum", x)) for x in (1, 2, 3)]
        >>> in_lockstep(runs, ["sum"], lambda key, values: sum(values)), seen
        (True, [6, 6, 6])
        >>> runs = [lambda meet, keys=keys: [meet(key, 0) for key in keys] for keys in ("ab", "ba")]
        >>> in_lockstep(runs, "ab", lambda key, values: None)
        False
    """
    if len(runs) == 1:
        runs[0](lambda key, value: decide(key, [value]))
        return True
    ahead = list(points)
    with ThreadPoolExecutor(len(runs)) as pool:
        coroutines = [_Coroutine(run) for run in runs]
        try:
            for coroutine in coroutines:
                if not coroutine.starts(pool):
                    return False
            for coroutine in coroutines:
                coroutine.proceed()
            while waiting := [coroutine for coroutine in coroutines if not coroutine.ended]:
                keys = {coroutine.key for coroutine in waiting}
                if not keys <= set(ahead):
                    return False
                while (point := ahead.pop(0)) not in keys:
                    pass
                there = [coroutine for coroutine in waiting if coroutine.key == point]
                told = decide(point, [coroutine.value for coroutine in there])
                for coroutine in there:
                    coroutine.proceed(told)
            return True
        finally:
            for coroutine in coroutines:
                coroutine.cancel()


class _Coroutine:
    """Run in a thread that waits its turn.

    It works only while :meth:`proceed` waits for it.

    Attributes:
        key, value: of the meeting point at which it waits.
    """

    def __init__(self, run: Run) -> None:
        self.key: Hashable = None
        self.value: Any = None
        self._run = run
        self._told: Any = None
        self._cancelled = False
        self._ours, self._theirs = Semaphore(0), Semaphore(0)
        # What holds for one thread alone holds in this one too.
        self._inference, self._graded = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        self._future: Future[None] = Future()

    def starts(self, pool: ThreadPoolExecutor) -> bool:
        """Tell whether there is a thread for the run.

        Without one it may be begun by another run's, and must be cancelled.
        """
        try:
            self._future = pool.submit(copy_context().run, self._work)
        except RuntimeError:
            return False
        self._future.add_done_callback(lambda _: self._ours.release())
        return True

    @property
    def ended(self) -> bool:
        """Tell whether the run came to its end."""
        return self._future.done()

    def proceed(self, told: Any = None) -> None:
        """Let the run go on to its next stop.

        That is its next meeting point or its end. Raises what the run raises.
        """
        self._told = told
        self._theirs.release()
        self._ours.acquire()
        if self.ended:
            self._future.result()

    def cancel(self) -> None:
        """End the run where it waits."""
        self._cancelled = True
        self._theirs.release()

    def _work(self) -> None:
        with torch.inference_mode(self._inference), torch.set_grad_enabled(self._graded):
            self._wait()
            self._run(self._meet)

    def _meet(self, key: Hashable, value: Any) -> Any:
        self.key, self.value = key, value
        self._ours.release()
        self._wait()
        told, self._told = self._told, None
        return told

    def _wait(self) -> None:
        self._theirs.acquire()
        if self._cancelled:
            raise _Cancelled
