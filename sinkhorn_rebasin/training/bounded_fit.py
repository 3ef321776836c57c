"""A fit of so many steps that stays quiet, ends in time and can be interrupted."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import lightning

from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.training.rebasin_module import RebasinModule
from sinkhorn_rebasin.training.step_progress import StepProgress

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}
LENGTHS = ("max_steps", "min_steps", "max_epochs", "min_epochs", "max_time", "limit_train_batches")


@dataclass(frozen=True)
class FitEnd:
    """Tell how a fit ended.

    Attributes:
        steps: how many it took.
        seconds_per_step: median of what they took; infinite without a step.
        interrupted: whether by Ctrl-C.
    """

    steps: int
    seconds_per_step: float
    interrupted: bool


class Watch(lightning.Callback):
    """Time every step, stop a fit at a deadline, and note an interruption.

    Args:
        deadline: in seconds of ``time.monotonic``; None stops at the last step.
        stop: the step after which it ends too; schedules do not know of it.

    Example:
        >>> Watch(deadline=0.0).interrupted
        False
    """

    def __init__(self, deadline: float | None = None, stop: int | None = None) -> None:
        self.deadline = deadline
        self.stop = stop
        self.durations: list[float] = []
        self.interrupted = False
        self._began = 0.0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Read the clock, and stop when time is up."""
        now = time.monotonic()
        self.durations.append(now - self._began)
        late = self.deadline is not None and now > self.deadline
        if late or (self.stop is not None and trainer.global_step >= self.stop):
            trainer.should_stop = True

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Note Ctrl-C, which Lightning turns into the end of the program."""
        self.interrupted = isinstance(exception, KeyboardInterrupt)

    @property
    def seconds_per_step(self) -> float:
        """Median over the steps; infinite without one."""
        ordered = sorted(self.durations)
        return ordered[len(ordered) // 2] if ordered else float("inf")


def bounded_fit(
    module: RebasinModule,
    loader: Any,
    *,
    steps: int,
    epoch: int,
    callbacks: Sequence[lightning.Callback],
    options: Mapping[str, Any],
    title: str | None = None,
    deadline: float | None = None,
    stop: int | None = None,
) -> FitEnd:
    """Fit a module for a number of steps, quietly.

    Args:
        module: what is trained.
        loader: training batches.
        steps: at most so many.
        epoch: steps after which callbacks of epochs run, at most one pass over the loader.
        callbacks: run before the ones in ``options``.
        options: of the Trainer, such as accelerator, devices, precision, logger, callbacks or strategy.
        title: of the progress bar; None shows none.
        deadline: in seconds of ``time.monotonic``; the step that passes it is the last.
        stop: the step after which it ends; temperatures and rates fall as if it went on.

    Returns:
        How it ended. After Ctrl-C callbacks have not been told that training ended.

    Raises:
        RebasinError: an option says how long to train, or is none of a Trainer's.
    """
    check_options(options)
    watch = Watch(deadline, stop)
    bars = [] if title is None else [StepProgress(title)]
    given = {**QUIET, **options}
    extra = given.pop("callbacks", None) or []
    extra = extra if isinstance(extra, (list, tuple)) else [extra]
    with _quiet(), _interrupt_handler_kept():
        trainer = lightning.Trainer(
            max_steps=steps,
            limit_train_batches=epoch,
            callbacks=[*callbacks, watch, *bars, *extra],
            **given,
        )
        try:
            trainer.fit(module, loader)
        except (KeyboardInterrupt, SystemExit):
            if not watch.interrupted:
                raise
    return FitEnd(trainer.global_step, watch.seconds_per_step, watch.interrupted)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise RebasinError for options that no Trainer has, or that the fit decides itself.

    >>> check_options({"accelerator": "cpu"})
    """
    wrong = [name for name in LENGTHS if name in options]
    if wrong:
        raise RebasinError(
            f"Expected options of a Trainer other than its length but got {', '.join(wrong)}: steps and seconds are "
            f"the recipe's, Recipe(steps=..., closing_steps=..., seconds=...)."
        )
    known = set(inspect.signature(lightning.Trainer).parameters)
    for name in options:
        if name not in known:
            nearest = get_close_matches(name, sorted(known), n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise RebasinError(f"Expected options of lightning.Trainer but got {name!r}{meant}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning logs and warns of off the screen, and put its level back."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _interrupt_handler_kept() -> Iterator[None]:
    """Put the handler of Ctrl-C back, which Lightning switches off when it was interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
