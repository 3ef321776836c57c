"""Batches of unequal size, with padding and class weights, equal one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import evaluate_state
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.networks.counting import batch_weight, counted_labels
from tests.training.fitting import trainer

WEIGHTS = torch.tensor([0.2, 1.0, 3.0])
CRITERIA: dict[str, Callable[..., Tensor]] = {
    "function": F.cross_entropy,
    "layer": nn.CrossEntropyLoss(),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.2),
    "weighted": nn.CrossEntropyLoss(weight=WEIGHTS),
    "weighted and smoothed": nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1),
    "other index": nn.CrossEntropyLoss(ignore_index=1),
    "partial": partial(F.cross_entropy, weight=WEIGHTS, ignore_index=2),
    "likelihood": lambda y, t: F.nll_loss(F.log_softmax(y, 1), t),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "partial sum": partial(F.cross_entropy, reduction="sum"),
}


def drawn(name: str, places: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and labels, of which many do not count."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 4, *[places] * bool(places), generator=generator)
    y = torch.randint(3, (11, *[places] * bool(places)), generator=generator)
    if name not in ("other index", "partial"):
        y[3:9] = -100
    return x, y


def net(places: int = 0, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    if places:
        return nn.Sequential(nn.Conv1d(4, 6, 1), nn.ReLU(), nn.Conv1d(6, 3, 1))
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def split(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Batches of 2, 6 and 3: the second holds padding alone but for one sample."""
    return list(zip(x.split([2, 6, 3]), y.split([2, 6, 3]), strict=True))


@pytest.mark.parametrize("places", [0, 5])
@pytest.mark.parametrize("name", CRITERIA)
def test_batches_equal_one_batch(name: str, places: int) -> None:
    x, y = drawn(name, places)
    model, criterion = net(places), CRITERIA[name]
    expected = criterion(model(x), y).item()
    for data in (split(x, y), [(x, y)], [(x[4:7], y[4:7]), *split(x, y)][1:]):
        assert evaluate_state(model, {}, data, criterion)[0] == pytest.approx(expected, rel=1e-5)
    loss = sr.evaluate_path((net(places, 1), model), split(x, y), criterion, points=3).losses[-1].item()
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mse", "l1", "bce"])
def test_sequences_of_unequal_length_equal_one_batch(name: str) -> None:
    criterion = {"mse": F.mse_loss, "l1": nn.L1Loss(), "bce": nn.BCEWithLogitsLoss()}[name]
    x, y = torch.randn(1, 9), torch.rand(1, 9)
    data = [(x[:, :2], y[:, :2]), (x[:, 2:], y[:, 2:])]
    assert evaluate_state(nn.Identity(), {}, data, criterion)[0] == pytest.approx(
        criterion(x, y).item(), rel=1e-5
    )


def test_soft_labels_count_by_samples() -> None:
    x, y = drawn("other index")
    soft = F.one_hot(y, 3).float() * 0.8 + 0.2 / 3
    for criterion in (F.cross_entropy, nn.CrossEntropyLoss(weight=WEIGHTS)):
        found = evaluate_state(net(), {}, split(x, soft), criterion)[0]
        assert found == pytest.approx(criterion(net()(x), soft).item(), rel=1e-5)


@pytest.mark.parametrize("places", [0, 5])
@pytest.mark.parametrize("name", ["function", "other index", "likelihood"])
def test_accuracy_is_that_of_the_labels_that_count(name: str, places: int) -> None:
    x, y = drawn(name, places)
    hits = total = 0
    ignored = {"other index": 1}.get(name, -100)
    for row, label in zip(net(places)(x).argmax(1).flatten().tolist(), y.flatten().tolist(), strict=True):
        total += label != ignored
        hits += label != ignored and label == row
    found = evaluate_state(net(places), {}, split(x, y), CRITERIA[name])[1]
    assert found == pytest.approx(hits / total)


def test_a_batch_of_padding_alone_changes_nothing() -> None:
    x, y = drawn("function")
    padding = x[3:5], y[3:5]
    assert evaluate_state(net(), {}, [padding, (x, y), padding]) == evaluate_state(net(), {}, [(x, y)])
    with pytest.raises(DataError, match="at least one label that counts"):
        evaluate_state(net(), {}, [padding])


@pytest.mark.parametrize("name", CRITERIA)
def test_midpoints_count_likewise(name: str) -> None:
    x, y = drawn(name)
    first, second = net(), net(seed=1)
    spec = sr.discover_symmetry(first, x)
    losses = [
        Midpoint(first, second, spec, data, CRITERIA[name]).loss(sr.identity_permutations(spec))
        for data in (
            split(x, y),
            [(x[3:5], y[3:5]), (x, y)] if name not in ("other index", "partial") else [(x, y)],
        )
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", CRITERIA)
def test_validation_of_a_rebasin_counts_likewise(name: str, tmp_path: Path) -> None:
    x, y = drawn(name)
    rebasin = sr.SinkhornRebasin(net(), net(seed=1), x)
    found = []
    for data in (split(x, y), [(x, y)]):
        module = sr.training.RebasinModule(rebasin, sr.WeightDistance(), criterion=CRITERIA[name], points=5)
        logged = trainer(tmp_path).validate(module, DataLoader(data, batch_size=None), verbose=False)[0]
        found.append([logged[key] for key in ("val_barrier", "val_auc", "val_midpoint_loss")])
    path = sr.evaluate_path(rebasin, [(x, y)], CRITERIA[name], points=5)
    assert found[0] == pytest.approx([path.barrier, path.auc, path.midpoint_loss], rel=1e-4, abs=1e-6)
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("classes", [None, [[0, 1, 2], [0, 1, 2]]])
@pytest.mark.parametrize("ignored", [-100, 1])
def test_learners_test_and_remember_the_labels_that_count(ignored: int, classes: Any, tmp_path: Path) -> None:
    x, y = drawn("function")
    y[y < 0] = ignored
    learner = sr.training.continual.ExperienceReplay(
        net(), 2, classes=classes, criterion=nn.CrossEntropyLoss(ignore_index=ignored)
    )
    data = DataLoader(split(x, y), batch_size=None)
    trainer(tmp_path, max_epochs=1).fit(learner, DataLoader([(x, y)], batch_size=None), data)
    trainer(tmp_path).test(learner, [data] * 2, verbose=False)
    counted = y != ignored
    hits = (learner.network.eval()(x).argmax(1) == y)[counted].float().mean()
    assert learner.accuracy_matrix()[0, 0].item() == pytest.approx(hits.item())
    assert ignored not in learner.memory.classes().tolist()


def test_smoothed_labels_of_hidden_heads_leave_padding_out() -> None:
    from sinkhorn_rebasin.training.continual.heads import Heads

    heads, criterion = Heads([[0, 1], [2, 3]]), nn.CrossEntropyLoss(label_smoothing=0.2)
    outputs, labels, tasks = torch.randn(4, 4), torch.tensor([1, -100, 3, 2]), torch.tensor([0, 0, 1, 1])
    one = criterion(outputs[:1, :2], labels[:1])
    other = criterion(outputs[2:, 2:], labels[2:] - 2)
    torch.testing.assert_close(heads.loss(criterion, outputs, labels, tasks), (one + 2 * other) / 3)
    with pytest.raises(DataError, match="got 1"):
        heads.loss(criterion, outputs, labels, torch.tensor([1, 0, 1, 1]))


def test_curvature_of_observed_labels_leaves_padding_out() -> None:
    x, y = drawn("function")
    model, counted = net(), y >= 0
    for measure in (sr.diagonal_fisher, sr.kronecker_fisher):
        found = measure(model, [(x, y), (x[3:5], y[3:5])], labels="observed")
        expected = measure(model, [(x[counted], y[counted])], labels="observed")
        assert found.trace() == pytest.approx(expected.trace(), rel=1e-5)


def test_other_labels_are_left_as_they_are() -> None:
    for labels in (torch.rand(3), torch.tensor([True, False]), "text", (torch.zeros(2),)):
        before = copy.deepcopy(labels)
        assert counted_labels(labels, F.cross_entropy) is labels
        assert type(before) is type(labels)
    assert batch_weight(("outputs",), torch.zeros(3), F.cross_entropy, 3) == 3
    assert batch_weight(torch.zeros(3, 1), torch.zeros(3), lambda y, t: y.mean(), 3) == 3
