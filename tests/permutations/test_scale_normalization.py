"""Incoming norms of one, by the state alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ConvergenceWarning
from sinkhorn_rebasin.permutations import normalize_state_scales, rescale_state, unit_norms
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.rebasin.rescaled_networks import NETWORKS, built, factors
from tests.symmetry.witness import difference

SCALED = [name for name, network in NETWORKS.items() if network.positive]


@pytest.mark.parametrize("name", SCALED)
def test_norms_are_one_and_the_function_is_unchanged(name: str) -> None:
    model, inputs, spec, rescaling = built(name)
    state = normalize_state_scales(model.state_dict(), spec, rescaling)
    for group in rescaling.groups:
        for generator in rescaling.of(group):
            norms = unit_norms(state, spec, generator)
            torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-12, atol=1e-12)
    assert difference(model, state, inputs) < 1e-11


def test_norms_by_hand() -> None:
    model, _, spec, rescaling = built("relu")
    state = normalize_state_scales(model.state_dict(), spec, rescaling)
    for layer in ("0", "2"):
        joined = torch.cat([state[f"{layer}.weight"], state[f"{layer}.bias"][:, None]], 1)
        torch.testing.assert_close(joined.norm(dim=1), torch.ones(len(joined)).double())


@pytest.mark.parametrize("name", SCALED)
def test_rescaled_copies_become_equal(name: str) -> None:
    model, _, spec, rescaling = built(name)
    other = rescale_state(model.state_dict(), spec, rescaling, factors(spec, rescaling)[0])
    ours, theirs = (normalize_state_scales(state, spec, rescaling) for state in (model.state_dict(), other))
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-9, atol=1e-9)


class Block(nn.Module):
    """Added to its input: its outgoing weights are incoming ones of the units it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 7), nn.Linear(7, 6)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.outer(self.inner(x).relu())).relu()


def test_around_a_residual_stream_norms_become_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), Block(), Block(), nn.Linear(6, 2)).double()
    inputs = torch.randn(8, 3).double()
    spec = discover_symmetry(model, inputs)
    rescaling = discover_rescaling(model, spec, inputs, signs=False)
    assert sorted(len(one.exponents) for one in rescaling.generators) == [3, 3, 9]
    state = normalize_state_scales(model.state_dict(), spec, rescaling)
    for generator in rescaling.generators:
        norms = unit_norms(state, spec, generator)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-12, atol=1e-12)
    assert difference(model, state, inputs) < 1e-12


def test_a_chain_takes_one_sweep_and_one_to_see_it() -> None:
    model, _, spec, rescaling = built("relu")
    short = normalize_state_scales(model.state_dict(), spec, rescaling, max_sweeps=2)
    long = normalize_state_scales(model.state_dict(), spec, rescaling)
    assert all(torch.equal(short[name], tensor) for name, tensor in long.items())


def test_units_without_incoming_weights_stay() -> None:
    model, _, spec, rescaling = built("relu")
    state = model.state_dict()
    state["0.weight"][2] = 0
    state["0.bias"][2] = 0
    moved = normalize_state_scales(state, spec, rescaling)
    assert not bool(moved["0.weight"][2].any())
    assert all(bool(tensor.isfinite().all()) for tensor in moved.values())


def test_too_few_sweeps_are_told_and_keep_the_function() -> None:
    model, inputs, spec, rescaling = built("relu")
    with pytest.warns(ConvergenceWarning, match="after 1 sweeps"):
        state = normalize_state_scales(model.state_dict(), spec, rescaling, max_sweeps=1)
    assert difference(model, state, inputs) < 1e-12
