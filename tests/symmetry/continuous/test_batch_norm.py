"""Streams behind batch norms mix freely once these are folded with their statistics, and stay so when re-based."""

from __future__ import annotations

import copy
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import (
    LinearPath,
    SinkhornRebasin,
    discover_continuous,
    discover_symmetry,
    reset_batch_norm,
    weight_matching,
)
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.layers import folded_in
from sinkhorn_rebasin.permutations import PermutationSpec, random_maps, random_permutations, transform_state
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.symmetry import canonicalize, verify_continuous
from tests.rebasin.turned_problems import scatter
from tests.symmetry.continuous.small_networks import InvertedResidual
from tests.symmetry.witness import difference

INPUTS = torch.randn(12, 3, 5, 5, generator=torch.Generator().manual_seed(1)).double()
WRITERS = {"first.1", "blocks.0.4.1", "blocks.1.4.1"}
"""The batch norms that write to the stream, which cannot mix freely without them."""
FOLDED = WRITERS | {f"blocks.{block}.{place}.1" for block in (0, 1) for place in (0, 2)}
"""With them those of hidden channels are folded too."""


class Given(NamedTuple):
    """Two networks that have seen data, with their symmetries, and their canonical forms."""

    networks: list[nn.Module]
    spec: PermutationSpec
    continuous: ContinuousSpec
    forms: list[nn.Module]


def trained(seed: int) -> nn.Module:
    """A network whose batch norms have statistics, gains and shifts unlike those of a new one."""
    torch.manual_seed(seed)
    model = InvertedResidual(folded=False).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for _ in range(3):
            model(2 * torch.randn_like(INPUTS) + 1)
    return model.eval()


@cache
def given() -> Given:
    """Two networks of one architecture."""
    networks = [trained(0), trained(1)]
    spec = discover_symmetry(networks[0], INPUTS)
    continuous = discover_continuous(networks[0], spec, INPUTS, fold_batch_norm=True)
    return Given(
        networks, spec, continuous, [canonicalize(net, spec, continuous, INPUTS) for net in networks]
    )


def test_the_stream_is_linear_where_batch_norms_may_be_folded_and_only_there() -> None:
    networks, spec, continuous, _ = given()
    assert not discover_continuous(networks[0], spec, INPUTS)
    (stream,) = continuous.symmetries
    assert stream.kind == "linear"
    assert set(stream.gains) == {f"{name}.weight" for name in WRITERS}
    assert stream.unfoldable == ()
    assert continuous.error < 1e-12
    assert verify_continuous(networks[1], spec, continuous, INPUTS) < 1e-12


def test_the_canonical_form_computes_the_same_and_takes_every_map() -> None:
    networks, spec, continuous, forms = given()
    generator = torch.Generator().manual_seed(0)
    for network, form in zip(networks, forms, strict=True):
        assert difference(network, form.state_dict(), INPUTS) < 1e-12
        assert folded_in(form) == FOLDED
        assert not folded_in(network)
        assert all(bool((form.state_dict()[f"{name}.weight"] == 1).all()) for name in FOLDED)
        maps = random_maps(continuous, generator=generator)
        orders = random_permutations(spec, generator=generator)
        moved = transform_state(form.state_dict(), spec, continuous, maps, orders)
        assert difference(network, moved, INPUTS) < 1e-12
        again = canonicalize(form, spec, continuous, INPUTS).state_dict()
        for name, tensor in form.state_dict().items():
            torch.testing.assert_close(again[name], tensor, rtol=1e-9, atol=1e-12)


def test_a_network_in_training_mode_is_refused_by_name() -> None:
    _, spec, continuous, _ = given()
    with pytest.raises(ArchitectureError, match=r"first\.1.*model\.eval\(\)"):
        canonicalize(trained(0).train(), spec, continuous, INPUTS)


def test_maps_refuse_statistics_that_were_not_folded() -> None:
    networks, spec, continuous, forms = given()
    alignment = weight_matching(*forms, spec, symmetry=continuous)
    with pytest.raises(ArchitectureError, match=r"batch norm 'first\.1' of the target to have neutral"):
        alignment.apply(networks[1])
    assert difference(networks[1], alignment.apply(forms[1]), INPUTS) < 1e-9


def test_folded_norms_keep_their_statistics_while_a_rebasin_learns() -> None:
    networks, spec, continuous, forms = given()
    rebasin = SinkhornRebasin(*networks, INPUTS, spec=spec, symmetry=continuous)
    scatter(rebasin, 0)
    assert difference(networks[1], rebasin.eval().to_model().state_dict(), INPUTS) < 1e-9
    output = rebasin.train()(INPUTS, at=1.0)
    torch.testing.assert_close(output, forms[0](INPUTS))
    assert not torch.allclose(output, copy.deepcopy(forms[0]).train()(INPUTS))


def test_measuring_statistics_anew_leaves_folded_norms_alone() -> None:
    form = given().forms[0]
    before = {name: tensor.clone() for name, tensor in form.state_dict().items()}
    state = reset_batch_norm(form, [INPUTS]).state_dict()
    for name, tensor in before.items():
        assert torch.equal(state[name], tensor) or name.endswith("tracked")


class Behind(nn.Module):
    """A linear stream behind a batch norm, and hidden channels whose batch norm comes after an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(7, 6, bias=False), nn.BatchNorm1d(6)
        self.hidden, self.other, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.other(self.hidden(self.norm(self.first(x))).tanh()))


def test_a_gain_that_no_layer_before_it_takes_stays_and_its_statistics_are_neutral() -> None:
    torch.manual_seed(0)
    network, inputs = Behind().double(), torch.randn(9, 7).double()
    network(inputs)
    nn.init.normal_(network.other.weight, 1.0, 0.3)
    spec = discover_symmetry(network.eval(), inputs)
    continuous = discover_continuous(network, spec, inputs, fold_batch_norm=True)
    form = canonicalize(network, spec, continuous, inputs)
    assert folded_in(form) == {"norm", "other"}
    scale = network.other.weight / (network.other.running_var + network.other.eps).sqrt()
    torch.testing.assert_close(form.other.weight, scale)
    assert difference(network, form.state_dict(), inputs) < 1e-12


def test_midpoints_do_not_depend_on_how_statistics_and_weights_share_a_scale() -> None:
    networks, spec, continuous, forms = given()
    other = copy.deepcopy(networks[1])
    conv, norm = other.blocks[0][0]
    with torch.no_grad():  # the same function: a larger weight, and statistics that are larger by as much
        conv.weight.mul_(8)
        norm.running_mean.mul_(8)
        norm.running_var.copy_(64 * (norm.running_var + norm.eps) - norm.eps)
    assert difference(networks[1], other.state_dict(), INPUTS) < 1e-12
    form = canonicalize(other, spec, continuous, INPUTS)
    middles = [LinearPath.between(each, forms[0]).module_at(0.5)(INPUTS) for each in (forms[1], form)]
    torch.testing.assert_close(*middles)
    plain = LinearPath.between(networks[1], networks[0]).module_at(0.5)(INPUTS)
    assert not torch.allclose(plain, LinearPath.between(other, networks[0]).module_at(0.5)(INPUTS))
