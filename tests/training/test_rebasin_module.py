from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin import MidpointLoss, RandomPointLoss, SinkhornRebasin, evaluate_path
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import DataError, LossError, RebasinError
from sinkhorn_rebasin.training import RebasinModule, TemperatureAnnealing, data_free_steps
from tests.rebasin.rebasin_problems import built, inputs
from tests.training.fitting import Recorder, dataset, in_turn, loader, rescaling, scores_of, trainer


class Data(lightning.LightningDataModule):
    """The small dataset as a data module."""

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(batch_size=8)


def test_a_fit_is_the_plain_loop(tmp_path: Path) -> None:
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy), lr=0.05)
    trainer(tmp_path, max_epochs=2).fit(module, loader())
    rebasin = built()[2]
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=0.05)
    for _ in range(2):
        for batch_inputs, labels in loader():
            optimizer.zero_grad()
            F.cross_entropy(rebasin(batch_inputs, at=0.5), labels).backward()
            optimizer.step()
    assert all(torch.equal(module.rebasin.scores[name], rebasin.scores[name]) for name in rebasin.scores)


def test_a_hard_fit_is_the_plain_loop_over_the_scales_alone(tmp_path: Path) -> None:
    loss, rebasin, witness = MidpointLoss(F.cross_entropy), rescaling(), rescaling().eval()
    module = RebasinModule(rebasin, loss, hard=True, scale_lr=0.05, scale_decay=0.1)
    before = scores_of(module)
    trainer(tmp_path, max_epochs=2).fit(module, loader())
    optimizer = torch.optim.AdamW(witness.log_scales.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(2):
        for batch_inputs, labels in loader():
            optimizer.zero_grad()
            F.cross_entropy(witness(batch_inputs, at=0.5), labels).backward()
            optimizer.step()
    assert not rebasin.training
    assert rebasin.log_scales["0"].abs().max() > 0.01
    assert torch.equal(rebasin.log_scales["0"], witness.log_scales["0"])
    assert all(torch.equal(scores, before[name]) for name, scores in scores_of(module).items())


def test_scores_do_not_decay_and_scales_do(tmp_path: Path) -> None:
    states = []
    for decay in (0.0, 0.5):
        module = RebasinModule(rescaling(), MidpointLoss(F.cross_entropy), scale_lr=0.1, scale_decay=decay)
        trainer(tmp_path, max_steps=1, max_epochs=1).fit(module, loader())
        states.append(module)
    assert torch.equal(scores_of(states[0])["0"], scores_of(states[1])["0"])
    groups = states[1].configure_optimizers().param_groups
    assert [group["weight_decay"] for group in groups] == [0.0, 0.5]


def test_a_hard_fit_without_scales_has_nothing_to_train() -> None:
    with pytest.raises(RebasinError, match="rescale=True"):
        RebasinModule(built()[2], MidpointLoss(F.cross_entropy), hard=True)


def test_a_hard_fit_where_only_signs_are_free_says_so() -> None:
    pair = (nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)) for _ in range(2))
    rebasin = SinkhornRebasin(*pair, torch.randn(2, 5), rescale=True)
    with pytest.raises(RebasinError, match="only signs are free") as caught:
        RebasinModule(rebasin, MidpointLoss(F.cross_entropy), hard=True)
    assert "rescale=True" not in str(caught.value)


def test_only_scores_are_trained_and_the_networks_stay(tmp_path: Path) -> None:
    rebasin = built("residual")[2]
    kept = {name: tensor.clone() for name, tensor in rebasin.state_dict().items()}
    batches = in_turn([(inputs("residual", seed), torch.arange(4) % 3) for seed in range(3)])
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy))
    trainer(tmp_path).fit(module, batches, batches)
    changed = {name for name, tensor in rebasin.state_dict().items() if not torch.equal(tensor, kept[name])}
    assert {name.split(".")[0] for name in changed} == {"scores", "scalings"}
    assert len(list(module.parameters())) == len(rebasin.scores)


def test_an_optimizer_of_ones_own(tmp_path: Path) -> None:
    module = RebasinModule(
        built()[2], MidpointLoss(F.cross_entropy), optimizer=lambda p: torch.optim.SGD(p, lr=0.0)
    )
    before = scores_of(module)
    trainer(tmp_path).fit(module, loader())
    assert all(torch.equal(before[name], after) for name, after in scores_of(module).items())


def test_a_lambda_is_a_loss(tmp_path: Path) -> None:
    module = RebasinModule(built()[2], lambda rebasin, batch: rebasin(batch[0]).square().mean())
    before = scores_of(module)
    fit = trainer(tmp_path)
    fit.fit(module, loader())
    assert any(not torch.equal(before[name], after) for name, after in scores_of(module).items())
    assert fit.callback_metrics["train_loss"].isfinite()


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (lambda rebasin, batch: rebasin(batch[0]), r"scalar but got shape \(4, 3\)"),
        (lambda rebasin, batch: rebasin(batch[0]).sum().item(), "float"),
        (lambda rebasin, batch: rebasin(batch[0]).sum() * float("nan"), "nan"),
        (lambda rebasin, batch: rebasin(batch[0]).sum().detach(), "no gradient"),
    ],
    ids=["shape", "number", "nan", "detached"],
)
def test_a_bad_loss_is_an_error_and_the_scores_are_those_before_the_step(
    tmp_path: Path, bad: Any, text: str
) -> None:
    good, calls = MidpointLoss(F.cross_entropy), []

    def loss(rebasin: SinkhornRebasin, batch: Any) -> Any:
        calls.append(1)
        return good(rebasin, batch) if len(calls) < 3 else bad(rebasin, batch)

    module, recorder = RebasinModule(built()[2], loss), Recorder()
    with pytest.raises(LossError, match=text):
        trainer(tmp_path, callbacks=[recorder]).fit(module, loader())
    clean = RebasinModule(built()[2], good)
    trainer(tmp_path, max_steps=2).fit(clean, loader())
    assert len(calls) == 3
    assert all(torch.equal(scores_of(clean)[name], after) for name, after in scores_of(module).items())


def test_a_rebasin_left_in_eval_mode_is_trained_all_the_same(tmp_path: Path) -> None:
    one, other = (RebasinModule(built()[2], MidpointLoss(F.cross_entropy)) for _ in range(2))
    other.rebasin.eval()
    for module in (one, other):
        trainer(tmp_path).fit(module, loader())
    assert all(torch.equal(scores_of(one)[name], after) for name, after in scores_of(other).items())


def test_an_empty_dataloader_is_an_error_and_the_scores_stay(tmp_path: Path) -> None:
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy))
    before = scores_of(module)
    for empty in (DataLoader(TensorDataset(torch.zeros(0, 5), torch.zeros(0))), data_free_steps(0)):
        with pytest.raises(DataError, match="data_free_steps"):
            trainer(tmp_path).fit(module, empty)
    assert all(torch.equal(before[name], after) for name, after in scores_of(module).items())


def test_a_data_module_and_a_csv_logger(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    module = RebasinModule(built()[2], RandomPointLoss(F.cross_entropy), points=3)
    annealing = TemperatureAnnealing(geometric(1.0, 0.1))
    fit = trainer(tmp_path, max_epochs=2, logger=logger, log_every_n_steps=1, callbacks=[annealing])
    fit.fit(module, datamodule=Data())
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    columns = table[0].split(",")
    assert {"train_loss", "temperature", "val_barrier", "val_auc", "val_midpoint_loss"} <= set(columns)
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in table[1:]]
    logged = [float(row["temperature"]) for row in rows if row["temperature"]]
    assert logged == pytest.approx([0.1 ** (step / 9) for step in range(10)], rel=1e-5)


def test_a_loader_that_is_used_up_ends_a_fit_of_so_many_steps(tmp_path: Path) -> None:
    class Once:
        """Batches that come once."""

        def __init__(self) -> None:
            self.batches = iter(loader())

        def __iter__(self) -> Any:
            return self.batches

    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy))
    with pytest.raises(DataError, match="used up after one pass"):
        trainer(tmp_path, max_epochs=-1, max_steps=20).fit(module, Once())


def test_clipped_and_accumulated_gradients(tmp_path: Path) -> None:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0)

    loss, recorder = MidpointLoss(F.cross_entropy), Recorder()
    module = RebasinModule(built()[2], loss, optimizer=sgd)
    before = scores_of(module)
    options = {"max_epochs": 1, "gradient_clip_val": 1e-3, "accumulate_grad_batches": 5}
    trainer(tmp_path, callbacks=[recorder], **options).fit(module, loader())
    moved = torch.cat([(before[name] - after).flatten() for name, after in scores_of(module).items()])
    assert recorder.steps == [0, 0, 0, 0, 1]
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)
    rebasin = built()[2]
    torch.stack([loss(rebasin, batch) for batch in loader()]).mean().backward()
    gradient = torch.cat([scores.grad.flatten() for scores in rebasin.scores.values()])  # type: ignore[union-attr]
    assert float(torch.cosine_similarity(moved, gradient, dim=0)) == pytest.approx(1.0, abs=1e-5)


def test_training_lowers_the_loss_at_the_midpoint(tmp_path: Path) -> None:
    rebasin = built()[2]
    before = evaluate_path(rebasin, loader(20), points=3).midpoint_loss
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), lr=0.1)
    annealing = TemperatureAnnealing(geometric(1.0, 0.05))
    trainer(tmp_path, max_epochs=60, callbacks=[annealing]).fit(module, loader(20))
    assert evaluate_path(rebasin, loader(20), points=3).midpoint_loss < before
    assert len(dataset()) == 20
