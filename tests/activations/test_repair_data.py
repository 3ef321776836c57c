"""The data a repair measures on: kinds, numbers, order, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sinkhorn_rebasin import PermutationSpec, discover_symmetry, repair
from sinkhorn_rebasin.errors import ArchitectureError, DataError, SpecError
from tests.activations.repair_problems import CORRECTED, batches, layer_norm_mlp, merge, mlp, pair, recorded
from tests.zoo.case import Function


def test_a_shuffling_loader_draws_nothing_from_the_caller_and_shows_all_layers_the_same() -> None:
    reference, target = pair(mlp)
    for net in (reference, target):
        net.register_buffer("unsaved", torch.ones(2), persistent=False)
        net[0].register_buffer("again", net.unsaved, persistent=False)
    (x,) = batches(60)
    loader = DataLoader(TensorDataset(x), batch_size=20, shuffle=True)
    spec = discover_symmetry(reference, x)
    merged = merge(reference, target)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    repaired = repair(merged, reference, target, spec, loader, batches=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    shown = [batch for (batch,) in loader][:2]
    for name in CORRECTED[mlp]:
        found, first, second = (recorded(net, name, shown).std(1) for net in (repaired, target, reference))
        torch.testing.assert_close(found, (first + second) / 2)


def test_kinds_of_data_and_their_number() -> None:
    reference, target = pair(mlp)
    x, y = batches(20, 20)
    spec = discover_symmetry(reference, x)
    merged = merge(reference, target)
    plain = repair(merged, reference, target, spec, [x]).state_dict()
    for data in ([(x, torch.zeros(20))], iter([[x]]), [{"input": x}]):
        found = repair(merged, reference, target, spec, data).state_dict()
        torch.testing.assert_close(found, plain, rtol=0, atol=0)
    found = repair(merged, reference, target, spec, [x, y], batches=1).state_dict()
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_inputs_of_two_tensors_stay_inputs() -> None:
    def make() -> nn.Module:
        norm, last = nn.BatchNorm1d(6), nn.Linear(6, 3)
        return Function(lambda n, x, y: n.c(n.norm(n.a(x)).relu() * y), a=nn.Linear(5, 6), norm=norm, c=last)

    reference, target = pair(make)
    (x,) = batches(20)
    inputs = (x, x[:, :1])
    merged = merge(reference, target)
    repaired = repair(merged, reference, target, discover_symmetry(reference, inputs), [(inputs, None)])
    torch.testing.assert_close(repaired.norm.running_var, merged.a(x).var(0))


def other_spec() -> PermutationSpec:
    return discover_symmetry(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(2, 4))


def test_errors() -> None:
    reference, target = pair(mlp)
    data = batches(20)
    spec = discover_symmetry(reference, data[0])
    merged = merge(reference, target)
    with pytest.raises(DataError, match="at least one batch to measure activations"):
        repair(merged, reference, target, spec, [])
    with pytest.raises(DataError, match="at least two values of every hidden unit but got one"):
        repair(merged, reference, target, spec, [data[0][:1]])
    with pytest.raises(DataError, match="finite activations at layer '0'"):
        repair(merged, reference, target, spec, [data[0] * float("nan")])
    with pytest.raises(DataError, match=r"from 0 \(target\) to 1 \(reference\) but got 1.5"):
        repair(merged, reference, target, spec, data, at=1.5)
    with pytest.raises(SpecError, match=r"Expected tensor '0\.weight' of shape"):
        repair(merged, reference, target, other_spec(), data)
    for networks in ((mlp().float(), reference, target), (merged, reference, layer_norm_mlp().double())):
        with pytest.raises(ArchitectureError):
            repair(*networks, spec, data)
