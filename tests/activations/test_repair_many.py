"""Repair of merges of more than two networks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import RepairAlongPath, discover_symmetry, repair
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from tests.activations.repair_problems import CORRECTED, batches, convolutions, mlp, pair, recorded, residual


def networks(make, number: int = 3) -> list[nn.Module]:
    """Networks of other weights each."""
    first, *others = pair(make)
    while len(others) < number - 1:
        torch.manual_seed(len(others) + 10)
        other = make().double().eval()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        others.append(other)
    return [first, *others]


def mixture(nets: Sequence[nn.Module], weights: Sequence[float], make) -> nn.Module:
    """The weighted mean of their weights."""
    merged = make().double().eval()
    states = [net.state_dict() for net in nets]
    merged.load_state_dict(
        {name: sum(w * state[name] for w, state in zip(weights, states, strict=True)) for name in states[0]}
    )
    return merged


@pytest.mark.parametrize("sizes", [(60,), (25, 35)])
@pytest.mark.parametrize("weights", [None, (0.5, 0.2, 0.3), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("make", [mlp, residual, convolutions])
def test_layers_have_the_weighted_means_of_all_statistics(make, weights, sizes) -> None:
    nets = networks(make)
    data = batches(*sizes)
    parts = weights or (1 / 3, 1 / 3, 1 / 3)
    merged = mixture(nets, parts, make)
    spec = discover_symmetry(nets[0], data[0])
    reference, *targets = nets
    repaired = repair(merged, reference, targets, spec, data, at=weights)
    for name in CORRECTED[make]:
        found, *ends = (recorded(net, name, data) for net in (repaired, *nets))
        for what in (lambda values: values.mean(1), lambda values: values.std(1)):
            goal = sum(part * what(end) for part, end in zip(parts, ends, strict=True))
            torch.testing.assert_close(what(found), goal, rtol=1e-9, atol=1e-9)


def test_two_networks_in_a_list_are_the_two() -> None:
    reference, target = networks(mlp, 2)
    data = batches(30)
    merged = mixture((reference, target), (0.3, 0.7), mlp)
    spec = discover_symmetry(reference, data[0])
    plain = repair(merged, reference, target, spec, data, at=0.3).state_dict()
    for targets, at in (([target], 0.3), ([target], (0.3, 0.7)), (target, (0.3, 0.7))):
        found = repair(merged, reference, targets, spec, data, at=at).state_dict()
        torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_the_weights_of_a_mixture_are_read_off_it() -> None:
    nets = networks(mlp, 4)
    data = batches(30)
    spec = discover_symmetry(nets[0], data[0])
    parts = (0.1, 0.2, 0.3, 0.4)
    merged = mixture(nets, parts, mlp)
    prepare = RepairAlongPath(nets[0], nets[1:], spec, data)
    assert prepare.weights_of(merged.state_dict()) == pytest.approx(parts, abs=1e-9)
    expected = repair(merged, nets[0], nets[1:], spec, data, at=parts).state_dict()
    found = prepare(merged, merged.state_dict())
    torch.testing.assert_close(dict(found), dict(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0.5, "a weight for each of the 3 networks"),
        ((0.5, 0.5), "a weight for each of the 3 networks but got 2"),
        ((0.5, 0.7, -0.2), "at least 0 that add up to 1"),
        ((0.5, 0.2, 0.2), "at least 0 that add up to 1"),
        ((0.5, 0.5, float("nan")), "at least 0 that add up to 1"),
    ],
)
def test_weights_that_do_not_fit_are_refused(at, message: str) -> None:
    nets = networks(mlp)
    data = batches(30)
    merged = mixture(nets, (1 / 3, 1 / 3, 1 / 3), mlp)
    with pytest.raises(DataError, match=message):
        repair(merged, nets[0], nets[1:], discover_symmetry(nets[0], data[0]), data, at=at)


def test_targets_that_do_not_fit_are_refused() -> None:
    nets = networks(mlp)
    data = batches(30)
    spec = discover_symmetry(nets[0], data[0])
    with pytest.raises(DataError, match="at least one target"):
        repair(nets[0], nets[0], [], spec, data)
    with pytest.raises(ArchitectureError):
        repair(nets[0], nets[0], [nets[1], nn.Linear(5, 3).double()], spec, data)
