"""Learning rates by the formula, at every step of a fit and after a resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

from sinkhorn_rebasin import RandomPointLoss
from sinkhorn_rebasin.errors import RecipeError
from sinkhorn_rebasin.training import CosineAnnealing, RebasinModule
from tests.rebasin.rebasin_problems import built
from tests.training.fitting import loader, trainer


class Rates(lightning.Callback):
    """Writes down the rates that each step was taken with."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_before_zero_grad(self, trainer: lightning.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Called in every optimiser step."""
        self.seen.append([group["lr"] for group in optimizer.param_groups])


def fitted(folder: Path, steps: int, annealed: int, resume: Path | None = None) -> list[list[float]]:
    """The rates of every step of a fit, of scores and of scales."""
    rebasin = built("mlp", rescale=True, check=True)[2]
    module = RebasinModule(rebasin, RandomPointLoss(F.cross_entropy), lr=0.1, scale_lr=0.01)
    rates, saving = Rates(), ModelCheckpoint(folder, filename="{step}", save_top_k=-1)
    callbacks = [CosineAnnealing(annealed), rates, saving]
    fit = trainer(folder, max_epochs=-1, max_steps=steps, callbacks=callbacks)
    fit.fit(module, loader(), ckpt_path=resume)
    return rates.seen


def expected(steps: range, annealed: int) -> list[float]:
    """Twenty steps up, times half a period of the cosine."""
    return [min(1, (i + 1) / 20) * (1 + math.cos(math.pi * i / annealed)) / 2 for i in steps]


def test_every_group_of_parameters_has_its_rate_times_the_cosine(tmp_path: Path) -> None:
    seen = fitted(tmp_path, 30, 30)
    factors = expected(range(30), 30)
    assert [rates[0] for rates in seen] == pytest.approx([0.1 * factor for factor in factors])
    assert [rates[1] for rates in seen] == pytest.approx([0.01 * factor for factor in factors])
    assert max(factors) > 0.3 > 0.01 > factors[-1]


def test_a_resumed_fit_goes_on_where_the_schedule_was(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole", 15, 15)
    first = fitted(tmp_path / "half", 10, 15)
    rest = fitted(tmp_path / "half", 15, 15, resume=next((tmp_path / "half").glob("step=10.ckpt")))
    assert [*first, *rest] == whole
    assert len(rest) == 5


def test_rates_stay_at_zero_after_the_last_step() -> None:
    annealing = CosineAnnealing(40)
    assert [annealing.factor(step) for step in (40, 41, 1000)] == [0.0, 0.0, 0.0]
    assert annealing.factor(20) == pytest.approx(0.5)
    assert CosineAnnealing(0).factor(0) == pytest.approx(0.05)


def test_every_cycle_begins_anew() -> None:
    once, thrice = CosineAnnealing(30), CosineAnnealing(30, cycles=3)
    assert [thrice.factor(step) for step in range(90)] == [once.factor(step) for step in range(30)] * 3
    assert once.factor(30) == thrice.factor(90) == thrice.factor(200) == 0.0
    with pytest.raises(RecipeError, match="one cycle"):
        CosineAnnealing(30, cycles=0)
