"""Validation, tests and predictions of a re-basin under a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from sinkhorn_rebasin import MidpointLoss, WeightDistance, evaluate_path
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training import RebasinModule
from tests.rebasin.rebasin_problems import built, inputs
from tests.training.fitting import dataset, in_turn, loader, trainer


def confidence(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss that rises between networks that agree on nothing, so that there is a barrier to measure."""
    return -F.cross_entropy(outputs, labels)


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_validation_agrees_with_evaluate_path(tmp_path: Path, name: str) -> None:
    batches = [(inputs(name, seed), torch.arange(4) % 3) for seed in range(3)]
    batches.append((batches[0][0][:2], batches[0][1][:2]))
    batches = in_turn(batches)
    rebasin = built(name)[2]
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), criterion=confidence, points=7)
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(module, batches, batches)
    expected = evaluate_path(rebasin, batches, confidence, points=7)
    assert expected.barrier > 0
    logged = {key: float(value) for key, value in fit.callback_metrics.items()}
    assert logged["val_barrier"] == pytest.approx(expected.barrier, rel=1e-4, abs=1e-6)
    assert logged["val_auc"] == pytest.approx(expected.auc, rel=1e-4, abs=1e-6)
    assert logged["val_midpoint_loss"] == pytest.approx(expected.midpoint_loss, rel=1e-5)
    alone = trainer(tmp_path).validate(module, batches, verbose=False)[0]
    assert alone["val_barrier"] == pytest.approx(logged["val_barrier"], rel=1e-6)


def test_validation_counts_the_samples_of_labels_in_any_structure(tmp_path: Path) -> None:
    def weighted(outputs: Tensor, labels: Any) -> Tensor:
        classes, weights = labels
        return (F.cross_entropy(outputs, classes, reduction="none") * weights).mean()

    (x, classes), weights = dataset().tensors, torch.linspace(0.0, 2.0, 20)
    batches = [(x[part], (classes[part], weights[part])) for part in (slice(0, 17), slice(17, 20))]
    module = RebasinModule(built()[2], lambda rebasin, batch: 0.0, criterion=weighted, points=5)
    data = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    (logged,) = trainer(tmp_path).validate(module, data, verbose=False)
    expected = evaluate_path(module.rebasin, batches, weighted, points=5)
    assert logged["val_midpoint_loss"] == pytest.approx(float(expected.midpoint_loss), rel=1e-5)
    assert logged["val_barrier"] == pytest.approx(expected.barrier, rel=1e-4)


def test_validation_changes_neither_scores_nor_random_state() -> None:
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy), points=3)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    batches = list(loader())
    random_state = torch.get_rng_state()
    module.on_validation_epoch_start()
    for batch in batches:
        module.validation_step(batch, 0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("points", [2, 4, 1])
def test_points_without_a_midpoint_are_an_error(points: int) -> None:
    with pytest.raises(DataError, match="odd"):
        RebasinModule(built()[2], WeightDistance(), points=points)


def test_a_test_logs_what_validation_does(tmp_path: Path) -> None:
    module = RebasinModule(built()[2], MidpointLoss(F.cross_entropy), criterion=confidence, points=5)
    fit = trainer(tmp_path)
    (tested,), (validated,) = (run(module, loader(), verbose=False) for run in (fit.test, fit.validate))
    expected = evaluate_path(module.rebasin, loader(), confidence, points=5)
    assert tested["test_barrier"] == pytest.approx(expected.barrier, rel=1e-4)
    assert tested["test_midpoint_loss"] == pytest.approx(expected.midpoint_loss, rel=1e-4)
    assert tested == {name.replace("val", "test"): value for name, value in validated.items()}


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5])
def test_predictions_are_those_of_the_merged_network(tmp_path: Path, at: float) -> None:
    rebasin = built("residual")[2]
    x = inputs("residual", 5)
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), predict_at=at)
    batches = in_turn([(x, torch.arange(4) % 3), x])
    predicted = trainer(tmp_path).predict(module, batches)
    expected = rebasin.merge(at).eval()(x)
    assert predicted is not None
    assert all(torch.allclose(output, expected, atol=1e-6) for output in predicted)  # type: ignore[call-overload]
    assert torch.allclose(module.eval()(x, at), expected, atol=1e-6)


def test_a_second_input_is_never_dropped_in_prediction(tmp_path: Path) -> None:
    module = RebasinModule(built("positional")[2], WeightDistance())
    with pytest.raises(DataError, match="second part"):
        trainer(tmp_path).predict(module, in_turn([inputs("positional")]))


@pytest.mark.parametrize("at", [-0.1, 1.5])
def test_predictions_off_the_path_are_refused(at: float) -> None:
    with pytest.raises(DataError, match=f"predict_at.*{at}"):
        RebasinModule(built()[2], WeightDistance(), predict_at=at)
