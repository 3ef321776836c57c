"""Checkpoints that hold torch's random state, so that a resumed run goes on as one that was never stopped."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from sinkhorn_rebasin.errors import DataError, RebasinWarning


class _Loaded(NamedTuple):
    """Hold where the run of a checkpoint was.

    Attributes:
        now: random states at which it was written, the global one first, then those of the loaders' generators.
        began: those at which the loader of its epoch was opened.
        batches: how many batches of that epoch were trained on; zero when it was over.
        first: whether that epoch was the first of its fit.
    """

    now: list[Tensor]
    began: list[Tensor]
    batches: int
    first: bool


class KeepsRandomState(lightning.LightningModule):
    """Keep torch's random state in checkpoints.

    It is a LightningModule. The state is the global one. A run resumed from any of them goes on with the same batches
    and the same random positions as one that was never stopped. Inside an epoch, the loader is opened at the random
    state at which that epoch began, and the batches that were trained on are drawn again and skipped.

    Note:
        Not kept are gradients that were accumulated over batches, the random states of NumPy and Python, and
        generators of one's own, but for those of dataloaders and their samplers. What draws from such a state, an
        augmentation say, draws other numbers after a stop.
    """

    _loaded: _Loaded | None = None
    _began: list[Tensor] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random states beside the weights.

        They are those of now and of the epoch's beginning.
        """
        checkpoint["random_state"] = torch.get_rng_state()
        if not self._fits() or self._began is None:
            return
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        checkpoint["loader_random_states"] = self._random_states()[1:]
        checkpoint["epoch_begin"] = {
            "random_states": self._began,
            "batches": 0 if self.trainer.is_last_batch else progress.processed,
            "first": self.current_epoch == 0,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the random state of a checkpoint.

        This is for a Trainer that resumes from it.
        """
        if not self._fits() or "random_state" not in checkpoint:
            return
        state = checkpoint["random_state"].cpu()
        now = [state, *(other.cpu() for other in checkpoint.get("loader_random_states", ()))]
        begin = checkpoint.get("epoch_begin")
        if begin is None:
            _warn_inside_an_epoch(checkpoint)
            begin = {"random_states": now, "batches": 0, "first": False}
        began = [other.cpu() for other in begin["random_states"]]
        self._loaded = _Loaded(now, began, int(begin["batches"]), bool(begin["first"]))
        self._began = began if self._loaded.batches else now
        torch.set_rng_state(self._began[0])

    def configure_model(self) -> None:
        """Note the state that the first loader sees.

        It is the random state at which the loader is opened. This comes after ``setup``, where a task begins, and
        before a checkpoint is loaded and anything asks for the number of steps, which opens the loader.
        """
        if self._fits():
            self._loaded, self._began = None, [torch.get_rng_state()]

    def on_train_start(self) -> None:
        """Open the loader again and skip.

        It is opened as before the stop. What was trained on is skipped.
        """
        loaded = self._loaded
        fetcher = getattr(self.trainer.fit_loop, "_data_fetcher", None)
        if loaded is None or fetcher is None:
            return
        loaders = fetcher.combined_loader.flattened
        resumes_itself = all(hasattr(loader, "load_state_dict") for loader in loaders)
        if loaded.batches and not resumes_itself:
            if not loaded.first:
                self._set_random_states(loaded.began)
                iter(fetcher)
            _skip(fetcher, loaded.batches)
        elif len(loaded.now) > 1 and not resumes_itself:
            self._set_random_states(loaded.now)
            iter(fetcher)
        if loaded.batches:
            self._set_random_states(loaded.now)

    def on_train_epoch_start(self) -> None:
        """Note the random states before the loader opens.

        The Trainer opens it next.
        """
        if self._loaded is None and self.current_epoch > 0:
            self._began = self._random_states()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let go of the loaded state within epochs.

        The loader drew from it as it had before.
        """
        self._loaded = None

    def on_train_epoch_end(self) -> None:
        """Take the loaded state again after its epoch.

        Opening the loader of an epoch that was over once more drew from it in vain.
        """
        if self._loaded is not None:
            self._set_random_states(self._loaded.now)
            self._loaded = None

    def _fits(self) -> bool:
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    def _generators(self) -> list[torch.Generator]:
        """List the generators of loaders and samplers.

        They are those of the training dataloaders.
        """
        combined = getattr(self.trainer.fit_loop, "_combined_loader", None)
        found: dict[int, torch.Generator] = {}
        for loader in () if combined is None else combined.flattened:
            for holder in (loader, getattr(loader, "sampler", None)):
                generator = getattr(holder, "generator", None)
                if isinstance(generator, torch.Generator):
                    found[id(generator)] = generator
        return list(found.values())

    def _random_states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(generator.get_state() for generator in self._generators())]

    def _set_random_states(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for generator, state in zip(self._generators(), states[1:], strict=False):
            generator.set_state(state)


def _skip(fetcher: Any, batches: int) -> None:
    """Draw as many batches; the Trainer counts them itself."""
    for number in range(batches):
        try:
            next(fetcher)
        except StopIteration:
            raise DataError(
                f"Expected the training dataloader of the stopped run, which had trained on {batches} batches of "
                f"this epoch, but this one ends after {number}."
            ) from None
    fetcher.fetched -= batches


def _warn_inside_an_epoch(checkpoint: dict[str, Any]) -> None:
    """Warn of a checkpoint without its epoch's state.

    That is the random state at which its epoch began. The warning comes where that matters.
    """
    loops = checkpoint.get("loops") or {}
    progress = loops.get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    if progress.get("current", {}).get("processed", 0) > 0 and not progress.get("is_last_batch", False):
        warnings.warn(
            "Expected a checkpoint of the end of an epoch, or one with the random state at which its epoch began, "
            "but it is of neither kind: the rest of this epoch sees some batches again and others not at all. Resume "
            "from one of an epoch's end.",
            RebasinWarning,
            stacklevel=2,
        )
