"""What watches a long search: a limit of time, and a bar on the terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.networks.randomness import untouched_randomness

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SHOWN_AFTER = 1.0


class Watch:
    """Tell a search when its time is up, and the terminal how far it is.

    Args:
        seconds: limit, counted from here; None is none.
        progress: show a bar on standard error, once the search has taken a second.

    Raises:
        SpecError: seconds that are not above zero.

    Example:
        >>> Watch().expired, Watch(seconds=1e-9).expired
        (False, True)
    """

    def __init__(self, seconds: float | None = None, progress: bool = False) -> None:
        if seconds is not None and not seconds > 0:
            raise SpecError(f"Expected seconds above 0 but got {seconds}.")
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._task: TaskID | None = None
        self._bar = _bar() if progress else None
        # Searches that are over at once, of which some calls make dozens, show nothing.
        self._showing = threading.Timer(SHOWN_AFTER, self._bar.start) if self._bar is not None else None

    @property
    def expired(self) -> bool:
        """Say whether the time is up."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def begin(self, description: str, groups: int) -> None:
        """Start a pass over so many groups."""
        if self._bar is None:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=groups, group="")

    def step(self, group: str, placed: int = 1) -> None:
        """Count groups that were placed."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=placed, group=group)

    def __enter__(self) -> Watch:
        if self._showing is not None:
            self._showing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and self._showing is not None:
            self._showing.cancel()
            self._showing.join()
            if self._bar.live.is_started:
                self._bar.stop()


@untouched_randomness()
def _bar() -> Progress:
    # Importing rich takes as long as importing all that searches need, and draws from Python's random state.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[group]}"),
        console=Console(stderr=True),
    )
