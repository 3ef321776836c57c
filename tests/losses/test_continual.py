"""The published cost of continual learning, put together by hand."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sinkhorn_rebasin import ContinualLoss, SinkhornRebasin, permute_state
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.losses import consolidated_state, residual_state
from tests.rebasin.rebasin_problems import inputs, network

LABELS = torch.arange(4) % 3


def problem(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, SinkhornRebasin, dict[str, Tensor]]:
    """A network, its re-basin with itself at scores that say something, and a residual."""
    net = network("mlp", 1).to(dtype)
    generator = torch.Generator().manual_seed(0)
    options = {"start": "identity", "noise": 1.0, "generator": generator, "tolerance": 1e-12}
    rebasin = SinkhornRebasin(net, net, inputs("mlp").to(dtype), **options)
    residual = {
        name: 0.1 * torch.randn(value.shape, generator=generator, dtype=dtype)
        for name, value in net.named_parameters()
    }
    return net, rebasin, residual


def test_it_is_the_criterion_at_the_midpoint_plus_the_residual() -> None:
    net, rebasin, residual = problem()
    soft = permute_state(net.state_dict(), rebasin.spec, rebasin.soft_permutations())
    middle = {name: 0.5 * (soft[name] + value) + residual[name] for name, value in net.state_dict().items()}
    batch, replay = (inputs("mlp").double(), LABELS), (inputs("mlp", 1).double(), LABELS.flip(0))
    by_hand = [F.cross_entropy(functional_call(net, middle, x), y) for x, y in (batch, replay)]
    torch.testing.assert_close(ContinualLoss(F.cross_entropy)(rebasin, residual, batch), by_hand[0])
    both = ContinualLoss(F.cross_entropy, replay_weight=0.5)(rebasin, residual, batch, replay)
    torch.testing.assert_close(both, by_hand[0] + 0.5 * by_hand[1])


def test_its_gradient_is_the_slope() -> None:
    _, rebasin, residual = problem()
    names = list(residual)
    batch = inputs("mlp").double(), LABELS
    groups = list(rebasin.scores)

    def loss(*values: Tensor) -> Tensor:
        parts = dict(zip(names, values[: len(names)], strict=True))
        with torch.no_grad():
            kept = [rebasin.scores[group].clone() for group in groups]
        state = {f"scores.{g}": v for g, v in zip(groups, values[len(names) :], strict=True)}
        result: Tensor = functional_call(
            _Run(rebasin, parts, batch), {f"rebasin.{k}": v for k, v in state.items()}
        )
        assert all(torch.equal(a, rebasin.scores[g]) for a, g in zip(kept, groups, strict=True))
        return result

    values = [*residual.values(), *(rebasin.scores[group].detach() for group in groups)]
    torch.autograd.gradcheck(loss, [v.clone().requires_grad_() for v in values], atol=1e-4, fast_mode=True)


class _Run(nn.Module):
    """The loss as a module, so that scores can be put in from outside."""

    def __init__(self, rebasin: SinkhornRebasin, residual: dict[str, Tensor], batch: tuple) -> None:
        super().__init__()
        self.rebasin, self.parts, self.batch = rebasin, residual, batch

    def forward(self) -> Tensor:
        return ContinualLoss(F.cross_entropy)(self.rebasin, self.parts, self.batch)


def test_it_owns_no_optimiser_and_no_parameter_and_changes_nothing() -> None:
    net, rebasin, residual = problem()
    loss = ContinualLoss(F.cross_entropy)
    assert not isinstance(loss, nn.Module)
    owned = list(vars(loss).values())
    assert not any(isinstance(value, (torch.optim.Optimizer, Tensor, nn.Module)) for value in owned)
    batch = inputs("mlp").double(), LABELS
    # The starting point of the next Sinkhorn iteration is the re-basin's own bookkeeping.
    rebasin.eval()
    before = [pickle.dumps(part) for part in (net, residual, batch, rebasin.state_dict())]
    values = [float(loss(rebasin, residual, batch)) for _ in range(2)]
    assert values[0] == values[1]
    assert before == [pickle.dumps(part) for part in (net, residual, batch, rebasin.state_dict())]


def test_consolidation_is_the_published_sum_of_hard_states() -> None:
    net, rebasin, residual = problem()
    hard = permute_state(net.state_dict(), rebasin.spec, rebasin.hard_permutations())
    assert any(not torch.equal(hard[name], value) for name, value in net.state_dict().items())
    expected = {n: 0.8 * v + 0.2 * hard[n] + residual[n] for n, v in net.state_dict().items()}
    found = consolidated_state(rebasin.train(), residual)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
        assert not found[name].requires_grad
    ends = consolidated_state(rebasin, {}, alpha=1.0), consolidated_state(rebasin, {}, alpha=0.0)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ends[0][name], value)
        torch.testing.assert_close(ends[1][name], hard[name])


def test_errors() -> None:
    _, rebasin, residual = problem()
    with pytest.raises(LossError, match="no such tensor"):
        residual_state(rebasin, {"other": torch.zeros(1)})
    with pytest.raises(LossError, match=r"of shape \(1,\), where the network has \(8,\)"):
        residual_state(rebasin, {**residual, "0.bias": torch.zeros(1)})
    with pytest.raises(LossError, match="alpha <= 1 but got 2"):
        consolidated_state(rebasin, residual, alpha=2)
    with pytest.raises(DataError, match="pair"):
        ContinualLoss(F.cross_entropy)(rebasin, residual, inputs("mlp").double())
