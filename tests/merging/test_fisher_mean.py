"""Fisher merging against means that are worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError, SpecError
from tests.merging.fusion_networks import convolutional, identity, images, mlp, moving, points, with_state


def test_each_weight_is_the_mean_by_its_information() -> None:
    nets = [mlp(0), mlp(1)]
    stays = identity(sr.discover_symmetry(nets[0], points()))
    generator = torch.Generator().manual_seed(0)
    diagonals = [
        {n: torch.rand(p.shape, generator=generator).double() for n, p in net.named_parameters()}
        for net in nets
    ]
    diagonals[1]["0.bias"][0] = diagonals[0]["0.bias"][0] = 0.0  # nothing depends on it: a plain mean
    fishers = [sr.DiagonalFisher(each, 10) for each in diagonals]
    found = sr.fisher(nets, [stays, stays], fishers, [0.25, 0.75], normalized=False, floor=0.0)
    for name, first in nets[0].named_parameters():
        second, (f, g) = nets[1].get_parameter(name), (each[name] for each in diagonals)
        expected = (0.25 * f * first + 0.75 * g * second) / (0.25 * f + 0.75 * g)
        if name == "0.bias":
            expected = expected.detach().nan_to_num(
                float(0.25 * first[0].detach() + 0.75 * second[0].detach())
            )
        torch.testing.assert_close(found[name], expected.detach())
    assert set(found.fitted) == {name for name, _ in nets[0].named_parameters()}


def test_normalized_diagonals_have_one_norm_and_a_floor() -> None:
    nets = [mlp(0), mlp(1)]
    stays = identity(sr.discover_symmetry(nets[0], points()))
    ones = {name: torch.ones_like(p) for name, p in nets[0].named_parameters()}
    count = sum(value.numel() for value in ones.values())
    small = {**{name: 1e3 * value for name, value in ones.items()}, "0.bias": torch.zeros(6).double()}
    fishers = [sr.DiagonalFisher(each, 1) for each in (ones, small)]
    found = sr.fisher(nets, [stays, stays], fishers, floor=0.01)
    first, second = (net.state_dict() for net in nets)
    f, g = count**-0.5, (count - 6) ** -0.5
    expected = (f * first["2.weight"] + g * second["2.weight"]) / (f + g)
    torch.testing.assert_close(found["2.weight"], expected)
    expected = (f * first["0.bias"] + 0.01 * second["0.bias"]) / (f + 0.01)
    torch.testing.assert_close(found["0.bias"], expected)


@pytest.mark.parametrize(("make", "draw"), [(mlp, points), (convolutional, images)])
def test_a_diagonal_is_carried_as_it_is_on_the_moved_network(make: Any, draw: Any) -> None:
    nets, x = [make(0), make(1)], draw(12)
    there = moving(nets[1], x, scaled=True)
    moved, stays = with_state(nets[1], there.apply(nets[1])), identity(there.spec)
    measure = partial(sr.diagonal_fisher, data=[x], labels="expected")
    carried = sr.fisher(nets, [stays, there], [measure(net) for net in nets], floor=0.0)
    direct = sr.fisher([nets[0], moved], [stays, stays], [[x], [x]], labels="expected", floor=0.0)
    torch.testing.assert_close(dict(carried), dict(direct), rtol=1e-6, atol=1e-9)
    plain = sr.merge_many([nets[0], moved], [stays, stays])
    assert not torch.allclose(
        carried["0.weight" if make is mlp else "flat.weight"],
        plain["0.weight" if make is mlp else "flat.weight"],
    )


def test_batch_norm_statistics_are_plain_means_and_said_so() -> None:
    nets, x = [convolutional(0), convolutional(1)], images(6)
    stays = identity(sr.discover_symmetry(nets[0], x))
    found = sr.fisher(nets, [stays, stays], [[x], [x]])
    means = [net.norm.running_mean for net in nets]
    torch.testing.assert_close(found["norm.running_mean"], (means[0] + means[1]) / 2)
    assert set(found.averaged) == {"norm.running_mean", "norm.running_var"}
    assert found.kept == ("norm.num_batches_tracked",)
    assert "plain mean" in str(found)


def test_faults_are_named() -> None:
    nets, x = [mlp(0), mlp(1)], points()
    stays = identity(sr.discover_symmetry(nets[0], x))
    good = sr.diagonal_fisher(nets[0], [x])

    def fused(**change: Any) -> Any:
        return sr.fisher(nets, [stays, stays], [good, replace(good, diagonal={**good.diagonal, **change})])

    for value, told in ((-1.0, "zero or more"), (torch.nan, "finite")):
        with pytest.raises(DataError, match=f"'2.bias' of network 1 .*{told}"):
            fused(**{"2.bias": torch.full((5,), value)})
    with pytest.raises(DataError, match=r"'2.bias' of network 1 in shape \(5,\) but got \(4,\)"):
        fused(**{"2.bias": torch.ones(4)})
    with pytest.raises(DataError, match="network 1 but it holds no tensor"):
        sr.fisher(nets, [stays, stays], [good, sr.DiagonalFisher({}, 1)])
    with pytest.raises(DataError, match="a floor of zero or more but got -1"):
        sr.fisher(nets, [stays, stays], [good, good], floor=-1)


def test_maps_have_no_diagonal_and_are_refused() -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(8, 3)
    spec = sr.discover_symmetry(network, x)
    continuous = sr.discover_continuous(network, spec, x)
    turned = sr.Alignment(
        sr.identity_permutations(spec), spec, maps=sr.identity_maps(continuous), continuous=continuous
    )
    with pytest.raises(SpecError, match="one number for each weight"):
        sr.fisher([network, network], [identity(spec), turned], [[x], [x]])
