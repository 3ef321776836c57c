from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity import LearnedComplex, LearnedCurve
from sinkhorn_rebasin.training import CurveModule
from tests.front.pairs import loader, trained
from tests.training.fitting import trainer


def test_training_lowers_the_loss_on_the_way_and_moves_bends_alone(tmp_path: Path) -> None:
    curve = LearnedCurve(trained(0), trained(1))
    ends = [tensor.clone() for end in (curve.start, curve.end) for tensor in end.state_dict().values()]
    before = sr.evaluate_path(curve, loader(shuffle=False), points=5)
    trainer(tmp_path, max_epochs=15).fit(CurveModule(curve, lr=0.1), loader())
    after = sr.evaluate_path(curve, loader(shuffle=False), points=5)
    assert after.barrier < before.barrier / 3
    moved = [tensor for end in (curve.start, curve.end) for tensor in end.state_dict().values()]
    assert all(map(torch.equal, ends, moved))


def test_the_loss_is_that_of_the_point_with_its_weight_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = LearnedCurve(trained(0), trained(1))
    module, (x, y) = CurveModule(curve, weight_decay=0.3), next(iter(loader()))
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.4))
    loss = module.training_step((x, y), 0)
    point = curve.module_at(0.4)
    squares = sum(parameter.square().sum() for parameter in point.parameters())
    torch.testing.assert_close(loss.detach(), (F.cross_entropy(point(x), y) + 0.15 * squares).detach())


def test_batch_norm_runs_on_the_batch_in_training() -> None:
    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))

    curve = LearnedCurve(net(0), net(1)).train()
    x = torch.randn(50, 2) * 7 + 3
    outputs = curve(x, at=0.5)
    point = curve.module_at(0.5).train()
    torch.testing.assert_close(outputs, point(x))
    assert not torch.allclose(outputs, point.eval()(x))


class Merging(nn.Linear):
    """A layer that adds its bias to its weight in eval mode."""

    def train(self, mode: bool = True) -> Merging:
        if mode != self.training:
            self.weight.data += (-1 if mode else 1) * self.bias.data[:, None]
        super().train(mode)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight + self.bias[:, None] if self.training else self.weight)


def test_a_mode_is_a_flag_for_networks_that_rewrite_weights() -> None:
    curve = LearnedCurve(Merging(3, 2), Merging(3, 2))
    before = [tensor.clone() for tensor in curve.state_dict().values()]
    nn.ModuleList([curve]).eval().train()
    curve.eval()
    assert not any(network.training for network in (curve.start, curve.end, *curve.bends))
    assert all(map(torch.equal, before, curve.state_dict().values()))


def test_a_mode_is_a_flag_on_the_vertices_of_a_complex() -> None:
    complex = LearnedComplex([Merging(3, 2), Merging(3, 2)])
    complex.grow()
    before = [tensor.clone() for tensor in complex.state_dict().values()]
    nn.ModuleList([complex]).eval().train()
    complex.eval()
    assert not any(network.training for network in (*complex.networks, *complex.vertices))
    assert all(map(torch.equal, before, complex.state_dict().values()))
    corner = complex.simplexes()[0].module_at([1.0, 0.0, 0.0])
    torch.testing.assert_close(corner.weight, complex.networks[0].weight)
    changed = corner.weight.clone() + (1 if corner.training else -1) * corner.bias[:, None]
    torch.testing.assert_close(corner.train(not corner.training).weight, changed)  # plain, as its class wills


def test_decay_of_a_half_precision_network_is_summed_in_single_precision() -> None:
    net = nn.Linear(40, 40).bfloat16()
    module = CurveModule(
        LearnedCurve(net, net), lambda outputs, _: outputs.float().sum() * 0, weight_decay=2.0
    )
    loss = module.training_step((torch.ones(2, 40).bfloat16(), torch.zeros(2)), 0)
    expected = sum(p.detach().double().square().sum() for p in net.parameters())
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-5, atol=0)
