"""What a Trainer tells of a re-basin's module, and how the module comes back from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.model_summary import ModelSummary

from sinkhorn_rebasin import MidpointLoss
from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.training import RebasinModule
from tests.rebasin.rebasin_problems import built
from tests.training.fitting import loader, rescaling, scores_of, trainer


class Notes(Logger):
    """A logger that keeps hyper-parameters, as TensorBoard does."""

    name, version = "notes", 0

    def __init__(self) -> None:
        super().__init__()
        self.hyper_parameters: dict[str, Any] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep none."""

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Keep all."""
        self.hyper_parameters = dict(params)


def test_hyper_parameters_go_to_every_logger(tmp_path: Path) -> None:
    notes, table = Notes(), CSVLogger(tmp_path, name="", version="")
    module = RebasinModule(built(temperature=0.7)[2], MidpointLoss(F.cross_entropy), lr=0.05, points=5)
    trainer(tmp_path, max_epochs=1, logger=[notes, table], log_every_n_steps=1).fit(module, loader())
    expected = {
        "lr": 0.05,
        "scale_lr": 0.05,
        "scale_decay": 0.0,
        "rotation_lr": 0.03,
        "hard": False,
        "points": 5,
    }
    told = {"loss_name": "MidpointLoss(cross_entropy)", "criterion_name": "task_loss", "optimizer_name": ""}
    solver = {"temperature": pytest.approx(0.7), "tolerance": 1e-4, "max_iterations": 1000, "predict_at": 0.5}
    assert notes.hyper_parameters == {**expected, **told, **solver}
    assert "lr: 0.05" in (tmp_path / "hparams.yaml").read_text()
    assert all(isinstance(value, (bool, int, float, str)) for value in notes.hyper_parameters.values())


def test_a_module_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy), lr=0.05, points=7, predict_at=0.25)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(module, loader())
    fit.save_checkpoint(tmp_path / "end.ckpt")
    other = built(noise=0.0)[2]
    loaded = RebasinModule.load_from_checkpoint(
        tmp_path / "end.ckpt", rebasin=other, loss=MidpointLoss(), points=5
    )
    assert loaded.rebasin is other
    assert (loaded.lr, loaded.scale_lr, len(loaded.positions), loaded.predict_at) == (0.05, 0.05, 5, 0.25)
    assert all(torch.equal(scores_of(loaded)[name], after) for name, after in scores_of(module).items())
    trainer(tmp_path, max_epochs=1).fit(loaded, loader())


def test_a_checkpoint_without_networks_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(RebasinError, match="rebasin= and loss= beside the checkpoint"):
        RebasinModule.load_from_checkpoint(tmp_path / "any.ckpt")
    with pytest.raises(RebasinError, match="Expected loss= beside the checkpoint"):
        RebasinModule.load_from_checkpoint(tmp_path / "any.ckpt", rebasin=built()[2])


@pytest.mark.parametrize("hard", [False, True])
def test_the_summary_counts_what_is_trained(tmp_path: Path, hard: bool) -> None:
    class Looks(lightning.Callback):
        def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
            summary = ModelSummary(pl_module)
            counts.extend([summary.trainable_parameters, summary.total_parameters])

    counts: list[int] = []
    rebasin = rescaling()
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), hard=hard)
    trainer(tmp_path, max_epochs=1, callbacks=[Looks()]).fit(module, loader())
    scores, scales = 6 * 6, 6
    assert counts == [scales if hard else scores + scales, scores + scales]
    assert all(parameter.requires_grad for parameter in rebasin.parameters())
