"""The callback that melts the best permutations and anneals them again."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.rebasin.candidates import restore_learned
from sinkhorn_rebasin.training.barrier_monitor import BarrierMonitor
from sinkhorn_rebasin.training.rebasin_module import RebasinModule
from sinkhorn_rebasin.training.several_processes import rebasins_in


class WarmRestarts(lightning.Callback):
    r"""Start over from the best permutations.

    They are the best found so far. It does so a given number of times in one run. At the beginning of every cycle but
    the first the scores become the permutation matrices of the monitor's best scores plus normal noise, log-scales
    and sign scores the best ones as they are, neither hardened nor with noise, and the optimiser forgets its moments;
    with ``TemperatureAnnealing(schedule, cycles=...)`` the temperature begins again too. Annealing ends in a local
    optimum; what each cycle explores is the neighbourhood of the best.

    Args:
        monitor: remembers the best parameters; list it before this callback.
        cycles: how many cycles a run has.
        noise: standard deviation of the noise.

    Raises:
        RebasinError: when there is not at least one cycle, or the noise is negative; in a fit, when the monitor is
            not among the callbacks, or has found no finite loss yet.

    Source: the idea of restarts, Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (2017).
    """

    def __init__(self, monitor: BarrierMonitor, cycles: int, noise: float = 0.1) -> None:
        if cycles < 1 or noise < 0:
            raise RebasinError(f"Expected cycles >= 1 and noise >= 0 but got {cycles} and {noise}.")
        self.monitor = monitor
        self.cycles = cycles
        self.noise = noise
        self._restarted_at = 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Forget earlier fits.

        What a checkpoint kept is loaded after this.
        """
        if stage != "fit":
            return
        self._restarted_at = 0
        callbacks: list[Any] = vars(trainer)["callbacks"]  # Lightning declares no type for it
        if not any(callback is self.monitor for callback in callbacks):
            names = [type(callback).__name__ for callback in callbacks]
            raise RebasinError(
                f"Expected a BarrierMonitor listed before WarmRestarts, the one it was made with, but got the "
                f"callbacks {names}: pass Trainer(callbacks=[monitor, WarmRestarts(monitor, ...)])."
            )

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start over when a cycle begins."""
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
        begins = step * self.cycles // steps > (step - 1) * self.cycles // steps
        if not begins or step in (0, self._restarted_at) or not isinstance(pl_module, RebasinModule):
            return
        rebasin, best = pl_module.rebasin, self.monitor.best_parameters
        if not best:
            raise RebasinError(
                f"Expected a BarrierMonitor listed before WarmRestarts with the best parameters so far but got none "
                f"at step {step}: none of its {len(self.monitor.history)} evaluations has a finite mean loss."
            )
        self._restarted_at = step
        restore_learned(rebasin, best)
        for single in rebasins_in(rebasin).values():
            single.candidates.place(single.scores, single.hard_permutations())
            with torch.no_grad():
                for scores in single.scores.values():
                    scores.add_(self.noise * torch.randn_like(scores))
        for optimizer in trainer.optimizers:
            optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"restarted_at": self._restarted_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what a checkpoint kept."""
        self._restarted_at = state_dict["restarted_at"]
