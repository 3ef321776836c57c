"""A run that was stopped and resumed is bit for bit the run that was not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from sinkhorn_rebasin import MidpointLoss, RandomPointLoss, SinkhornRebasin, evaluate_path
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.training import BarrierMonitor, RebasinModule, TemperatureAnnealing
from tests.rebasin.rebasin_problems import built, inputs, mlp
from tests.training.fitting import Recorder, loader, scores_of, trainer


class StopAfter(lightning.Callback):
    """Stops a run early, as a time limit would."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Ask the Trainer to stop."""
        if self.epoch is not None and trainer.current_epoch + 1 == self.epoch:
            trainer.should_stop = True


def run(
    folder: Path,
    seed: int,
    *,
    stop: int | None = None,
    resume: Path | None = None,
    validate: bool = False,
    every: int = 1,
    weights_only: bool | None = None,
) -> tuple[RebasinModule, BarrierMonitor, Recorder, torch.Tensor]:
    """Four epochs, or less, of fresh objects, with the global random state of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = RebasinModule(built()[2], RandomPointLoss(F.cross_entropy), points=3)
        monitor, recorder = BarrierMonitor(loader(), points=3, restore_best=True, every=every), Recorder()
        saving = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        callbacks = [TemperatureAnnealing(geometric(1.0, 0.1)), monitor, recorder, StopAfter(stop), saving]
        fit = trainer(folder, max_epochs=4, callbacks=callbacks)
        options: dict[str, Any] = {} if weights_only is None else {"weights_only": weights_only}
        fit.fit(module, loader(shuffle=True), loader() if validate else None, ckpt_path=resume, **options)
        return module, monitor, recorder, torch.get_rng_state()


@cache
def whole_run(validate: bool) -> tuple[RebasinModule, BarrierMonitor, Recorder, torch.Tensor]:
    """The run that nothing stopped."""
    with TemporaryDirectory() as folder:
        return run(Path(folder), 1, validate=validate)


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, stop: int, validate: bool) -> None:
    whole, whole_monitor, whole_steps, whole_random = whole_run(validate)
    _, _, first_steps, _ = run(tmp_path / "b", 1, stop=stop, validate=validate)
    checkpoint = tmp_path / "b" / f"epoch={stop - 1}.ckpt"
    again, again_monitor, last_steps, again_random = run(
        tmp_path / "b", 77, resume=checkpoint, validate=validate
    )
    assert len(first_steps.scores) == 5 * stop
    joined = first_steps.scores + last_steps.scores
    for one, other in zip(whole_steps.scores, joined, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole_steps.temperatures == first_steps.temperatures + last_steps.temperatures
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.state_dict().items())
    assert torch.equal(whole_random, again_random)
    assert [step for step, _ in whole_monitor.history] == [step for step, _ in again_monitor.history]
    assert all(
        torch.equal(one.losses, other.losses)
        for (_, one), (_, other) in zip(whole_monitor.history, again_monitor.history, strict=True)
    )
    assert whole_monitor.best == again_monitor.best


def test_a_checkpoint_written_after_validation_is_resumed_too(tmp_path: Path) -> None:
    """It is written when the epoch's last step is done, but the epoch is not over for Lightning."""

    def scores(resume: Path | None) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(77 if resume else 1)
            module = RebasinModule(built()[2], RandomPointLoss(F.cross_entropy), points=3)
            saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
            fit = trainer(tmp_path, max_epochs=6, check_val_every_n_epoch=2, callbacks=[saving])
            fit.fit(module, loader(shuffle=True), loader(), ckpt_path=resume)
            return scores_of(module)

    whole = scores(None)
    for epoch in (1, 3):
        resumed = scores(tmp_path / f"epoch={epoch}.ckpt")
        assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


def test_the_best_are_put_back_when_a_run_is_resumed_at_its_end(tmp_path: Path) -> None:
    def worse(rebasin: Any, batch: Any) -> torch.Tensor:
        return -MidpointLoss(F.cross_entropy)(rebasin, batch)

    found = []
    for resume in (None, tmp_path / "epoch=1.ckpt"):
        module = RebasinModule(built()[2], worse, lr=1.0)
        monitor = BarrierMonitor(loader(), points=3, restore_best=True)
        saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, enable_version_counter=False)
        fit = trainer(tmp_path, max_epochs=2, callbacks=[monitor, saving])
        fit.fit(module, loader(), ckpt_path=resume)
        found.append(scores_of(module))
        assert float(evaluate_path(module.rebasin, loader(), points=3).losses.mean()) == monitor.best
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_the_random_state_matters(tmp_path: Path) -> None:
    """The witness of the test above: other random numbers give other scores."""
    one, other = run(tmp_path / "a", 1)[0], run(tmp_path / "b", 2)[0]
    assert any(not torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())


def test_checkpoints_load_without_running_code(tmp_path: Path) -> None:
    run(tmp_path, 1, stop=2)
    checkpoint = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    assert checkpoint["random_state"].dtype == torch.uint8
    module = run(tmp_path, 5, resume=tmp_path / "epoch=1.ckpt", weights_only=True)[0]
    assert module.rebasin.temperature == pytest.approx(0.1)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_loading_outside_of_a_fit_leaves_the_random_state_alone(tmp_path: Path) -> None:
    run(tmp_path, 1, stop=1)
    path, after = tmp_path / "epoch=0.ckpt", []
    batches = DataLoader(list(loader()), batch_size=None)  # type: ignore[arg-type]
    for checkpoint in (None, path):
        module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy), points=3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(8)
            trainer(tmp_path).validate(module, batches, ckpt_path=checkpoint, verbose=False)
            after.append(torch.get_rng_state())
    assert torch.equal(after[0], after[1])
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in module.state_dict().items())


def test_a_checkpoint_of_another_network_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, 1, stop=1)
    module = RebasinModule(SinkhornRebasin(mlp(9), mlp(9), inputs("mlp")), MidpointLoss(F.cross_entropy))
    kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"'reference.0.weight' of shape \(9, 5\).*\(8, 5\)"):
        trainer(tmp_path).fit(module, loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in module.state_dict().items())
