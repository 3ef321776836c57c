"""Networks whose forward reads their own parameters, or writes to what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from sinkhorn_rebasin import MidpointLoss, SinkhornRebasin, evaluate_path
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.training import RebasinModule
from sinkhorn_rebasin.training.continual import LearningWithoutForgetting
from tests.training.continual.tasks import Task
from tests.training.fitting import loader, scores_of, trainer


class ReadsItself(nn.Module):
    """Goes where its parameters are, and adds their size to what it returns."""

    def __init__(self, inputs: int = 5) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = next(self.parameters())
        size = sum(parameter.square().sum() for _, parameter in self.named_parameters())
        return self.head(self.norm(self.hidden(x.to(first.device, first.dtype))).relu()) + size


class WritesToInputs(nn.Module):
    """Normalises its inputs in place, or not."""

    def __init__(self, in_place: bool, norm: bool = False) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.norm, self.in_place = nn.GroupNorm(2, 8) if norm else nn.Identity(), in_place

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(1).mul_(0.5) if self.in_place else (x - 1) * 0.5
        return self.head(self.norm(self.hidden(x)).relu())


def test_a_network_that_reads_its_parameters_keeps_its_function_and_is_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference, target = ReadsItself().eval(), ReadsItself().eval()
    x = torch.randn(6, 5)
    rebasin = SinkhornRebasin(reference, target, x)
    keys, before = list(rebasin.state_dict()), {name: p.clone() for name, p in rebasin.named_parameters()}
    torch.testing.assert_close(rebasin.eval()(x), target(x))
    torch.testing.assert_close(rebasin.to_model()(x), target(x))
    assert list(rebasin.state_dict()) == keys
    assert [name for name, _ in rebasin.named_parameters()] == list(before)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(RebasinModule(rebasin, MidpointLoss(F.cross_entropy)), loader(), loader())
    assert fit.global_step == 5
    assert any(not torch.equal(p, before[name]) for name, p in rebasin.named_parameters())


def test_a_teacher_that_reads_its_parameters_teaches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner = LearningWithoutForgetting(ReadsItself(4), 2)
    for number in range(2):
        before = [parameter.clone() for parameter in learner.network.parameters()]
        fit = trainer(tmp_path, max_epochs=1)
        fit.fit(learner, Task(number))
        assert fit.global_step > 0
        assert any(not torch.equal(*pair) for pair in zip(before, learner.network.parameters(), strict=True))


class Nothing(IterableDataset[Tensor]):
    """No sample, and no length to tell so."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(())


def test_a_fit_that_sees_no_batch_is_an_error(tmp_path: Path) -> None:
    def stops(rebasin: object, batch: object) -> Tensor:
        raise StopIteration

    torch.manual_seed(0)
    rebasin = SinkhornRebasin(ReadsItself(), ReadsItself(), torch.randn(6, 5))
    for loss, batches in ((MidpointLoss(F.cross_entropy), DataLoader(Nothing())), (stops, loader())):
        module = RebasinModule(rebasin, loss)
        before = scores_of(module)
        with pytest.raises(DataError, match="raised StopIteration"):
            trainer(tmp_path).fit(module, batches)
        assert all(torch.equal(before[name], after) for name, after in scores_of(module).items())


@pytest.mark.parametrize("norm", [False, True])
def test_a_network_that_writes_to_its_inputs_is_as_one_that_does_not(tmp_path: Path, norm: bool) -> None:
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        networks = [WritesToInputs(in_place, norm).eval() for _ in range(2)]
        batches = list(loader())
        kept = [x.clone() for x, _ in batches]
        rebasin = SinkhornRebasin(*networks, batches[0][0])
        module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), points=5)
        data = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
        fit = trainer(tmp_path, max_epochs=1)
        fit.fit(module, data, data)
        losses = evaluate_path(rebasin, batches, points=5).losses
        found.append((losses, fit.callback_metrics["val_barrier"], scores_of(module)["hidden"]))
        assert all(torch.equal(*pair) for pair in zip(kept, (x for x, _ in batches), strict=True))
    torch.testing.assert_close(found[0], found[1])


def test_gradients_reach_inputs_that_ask_for_them() -> None:
    torch.manual_seed(0)
    network, x = WritesToInputs(True, norm=True), torch.randn(4, 5, requires_grad=True)
    run_at(network, {}, x).sum().backward()
    assert x.grad is not None
    expected = torch.autograd.grad(WritesToInputs.forward(network, x.clone()).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)
