"""Streams behind batch norms mix freely once these are folded with their statistics, and stay so when re-based."""

from __future__ import annotations

import copy
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import (
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
FOLDED = {"first.1", "blocks.0.4.1", "blocks.1.4.1"}
"""The batch norms that write to the stream; those of hidden channels stay as they are."""


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
    assert set(stream.gains) == {f"{name}.weight" for name in FOLDED}
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
    twin = copy.deepcopy(forms[0])
    for name, layer in twin.named_modules():
        layer.train(isinstance(layer, nn.BatchNorm2d) and name not in FOLDED)
    torch.testing.assert_close(output, twin(INPUTS))


def test_measuring_statistics_anew_leaves_folded_norms_alone() -> None:
    form = given().forms[0]
    before = {name: tensor.clone() for name, tensor in form.state_dict().items()}
    state = reset_batch_norm(form, [INPUTS]).state_dict()
    for name, tensor in before.items():
        layer = name.rpartition(".")[0]
        same = torch.equal(state[name], tensor)
        assert same == ("running" not in name or layer in FOLDED) or name.endswith("tracked")
