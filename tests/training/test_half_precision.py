"""Scores and residuals take the steps of single precision when everything else is in half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from tests.training.continual.tasks import LEARNERS, Task, net
from tests.training.fitting import loader, trainer


def rebasin_of(seed: int = 0, **options: Any) -> sr.SinkhornRebasin:
    torch.manual_seed(seed)
    pair = (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
    return sr.SinkhornRebasin(*pair, torch.randn(2, 5), **options)


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_scores_stay_in_single_precision(narrow: torch.dtype) -> None:
    rebasin = rebasin_of(rescale=True)
    before = {name: p.detach().clone() for name, p in rebasin.named_parameters()}
    rebasin.to(narrow)
    for name, parameter in rebasin.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.dtype == torch.float32
    assert {tensor.dtype for tensor in rebasin.reference_state().values()} == {narrow}
    x = torch.randn(4, 5).to(narrow)
    rebasin(x, at=0.5).sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in rebasin.parameters())
    assert rebasin.eval()(x).dtype == narrow
    rebasin.double()
    assert {p.dtype for p in rebasin.parameters()} == {torch.float64}


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.parametrize("loss", [sr.WeightDistance("l2"), sr.MidpointLoss(F.cross_entropy)], ids=str)
def test_fits_in_half_precision_follow_those_in_single(loss: Any, precision: str, tmp_path: Path) -> None:
    ends = []
    for chosen in ("32-true", precision):
        module = sr.training.RebasinModule(
            rebasin_of(start="identity", noise=0.5, generator=torch.Generator().manual_seed(0)), loss
        )
        trainer(tmp_path, max_epochs=2, precision=chosen).fit(module, loader())
        ends.append(module.rebasin.scores["0"].detach().float())
    assert ends[1].isfinite().all()
    moved = (
        ends[0]
        - rebasin_of(start="identity", noise=0.5, generator=torch.Generator().manual_seed(0)).scores["0"]
    ).norm()
    assert (ends[0] - ends[1]).norm() < 0.2 * moved


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.parametrize("name", ["rebasin", "distilling"])
def test_learners_stay_finite_in_half_precision(name: str, precision: str, tmp_path: Path) -> None:
    learner = LEARNERS[name](net(), tasks=2)
    for task in range(2):
        trainer(tmp_path, max_epochs=1, precision=precision).fit(learner, Task(task))
    assert all(value.isfinite().all() for value in learner.network.state_dict().values())
    assert all(scores.isfinite().all() for scores in learner.rebasin.scores.values())
