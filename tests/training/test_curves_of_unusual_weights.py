from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from sinkhorn_rebasin.connectivity import LearnedComplex, LearnedCurve
from sinkhorn_rebasin.training import CurveModule, SimplexModule
from tests.training.fitting import trainer
from tests.unusual_weights import Counting, Tied, Waves, real_numbers, seeded

KINDS = [Tied, Waves, Counting]


def batches(kind: type[nn.Module]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    tokens = torch.randint(7, (8, 3), generator=torch.Generator().manual_seed(1))
    return [(tokens if kind is Tied else tokens[:, :2] - 3.0, tokens[:, 0] % 4)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_bends_of_unusual_weights_are_trained(
    kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = seeded(kind, 0), seeded(kind, 1)
    curve, own = LearnedCurve(a, b), [real_numbers(net) for net in (a, b)]
    module = CurveModule(curve, weight_decay=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_: torch.tensor(0.4))
        (x, y), _ = batches(kind)
        loss = module.training_step((x, y), 0)
    numbers = 0.6 * own[0] + 0.4 * own[1]
    point = curve.module_at(0.4)
    torch.testing.assert_close(real_numbers(point), numbers, rtol=1e-5, atol=1e-6)
    expected = F.cross_entropy(point(x), y).double() + 0.15 * numbers.square().sum()
    torch.testing.assert_close(loss.detach(), expected.to(loss).detach())
    trainer(tmp_path, max_epochs=1).fit(module, DataLoader(batches(kind), batch_size=None))
    learned = [bend for bend in curve.bends.parameters() if bend.requires_grad]
    assert len(learned) == sum(p.requires_grad for p in a.parameters())
    assert not torch.equal(real_numbers(curve.bends[0]), (own[0] + own[1]) / 2)
    for net, before in zip((curve.start, curve.end, a, b), own * 2, strict=True):
        assert torch.equal(real_numbers(net), before)


@pytest.mark.parametrize("kind", KINDS)
def test_vertices_of_unusual_weights_are_trained(kind: type[nn.Module], tmp_path: Path) -> None:
    a, b = seeded(kind, 0), seeded(kind, 1)
    complex = LearnedComplex([a, b], spread=0.5)
    complex.grow()
    mean = (real_numbers(a) + real_numbers(b)) / 2
    edges = torch.stack([real_numbers(net) - real_numbers(a) for net in (b, complex.vertices[0])])
    torch.testing.assert_close(
        complex.log_volume(), torch.logdet(edges @ edges.T) / 2 - torch.tensor(2.0).log()
    )
    if kind is Waves:
        moved = (complex.vertices[0].waves - (a.waves + b.waves) / 2).detach()
        assert bool((moved.real != 0).all() and (moved.imag != 0).all())
        length = ((a.waves + b.waves) / 2).detach().norm()
        assert 0.2 < float(moved.norm() / length) < 0.9
    before = real_numbers(complex.vertices[0])
    assert not torch.equal(before, mean)
    module = SimplexModule(complex, epochs_per_vertex=1)
    trainer(tmp_path, max_epochs=1).fit(module, DataLoader(batches(kind), batch_size=None))
    assert not torch.equal(real_numbers(complex.vertices[0]), before)


def test_whole_numbers_on_a_curve_are_those_of_the_nearer_end() -> None:
    a, b = Counting(2), Counting(3)
    with pytest.warns(match="'times' differ"):
        curve = LearnedCurve(a, b)
    with pytest.warns(match="'times' differ"):
        points = [curve.module_at(at) for at in (0.0, 0.4, 0.5, 1.0)]
    assert [int(point.times) for point in points] == [2, 2, 3, 3]
    assert not any(point.times.requires_grad for point in points)
