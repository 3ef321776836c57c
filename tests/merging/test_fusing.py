"""Fusions as options of every merge."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import DataError
from tests.merging.fusion_networks import convolutional, identity, images, mlp, moving, points, with_state

DIRECT = {"fisher": sr.fisher, "regmean": sr.regmean, "regmean++": sr.regmean_plus_plus}


@pytest.mark.parametrize("fusion", [*DIRECT])
def test_several_are_fused_by_name_or_function(fusion: Any) -> None:
    nets, data = [mlp(seed) for seed in range(3)], [[points(20, seed)] for seed in range(3)]
    many = sr.match_many(nets, sr.discover_symmetry(nets[0], data[0][0]))
    shares = [0.5, 0.3, 0.2]
    expected = DIRECT[fusion](nets, many, data, shares)
    for found in (
        many.merge(nets, shares, fusion=fusion, data=data),
        sr.merge_many(nets, many, shares, fusion=fusion, data=data),
        many.merge(nets, shares, fusion=partial(DIRECT[fusion]), data=data),
    ):
        assert isinstance(found, sr.FusedState)
        torch.testing.assert_close(dict(found), dict(expected))
    assert not torch.allclose(found["2.weight"], many.merge(nets, shares)["2.weight"])
    odd = [[(x, "a text")] for (x,) in data]
    adapted = many.merge(nets, shares, fusion=fusion, data=odd, batch=lambda each: (each[0], None))
    torch.testing.assert_close(dict(adapted), dict(expected))


def test_settings_come_with_a_partial_function() -> None:
    nets, data = [mlp(0), mlp(1)], [[points(20, 0)], [points(20, 1)]]
    many = sr.match_many(nets, sr.discover_symmetry(nets[0], data[0][0]))
    found = many.merge(nets, fusion=partial(sr.regmean, alpha=0.0), data=data)
    torch.testing.assert_close(dict(found), dict(sr.regmean(nets, many, data, alpha=0.0)))
    assert not torch.allclose(found["2.weight"], sr.regmean(nets, many, data)["2.weight"])


@pytest.mark.parametrize("fusion", [*DIRECT])
def test_what_an_alignment_gives_back_fuses_its_networks(fusion: Any) -> None:
    first, x = convolutional(0), images(24)
    second = with_state(first, moving(first, x, scaled=True).apply(convolutional(1)))
    batches = [(x[:12], torch.randint(3, (12,))), (x[12:], torch.randint(3, (12,)))]
    recipe = sr.Recipe(steps=2, cycles=1, closing_steps=2, evaluate_every=2)
    found = sr.align(
        first, second, batches, batches, recipe=recipe, progress=False, trainer={"accelerator": "cpu"}
    )
    state = found.fused(fusion, 0.3)
    networks, alignments = [first, second], [identity(found.alignment.spec), found.alignment]
    expected = DIRECT[fusion](networks, alignments, [found.statistics] * 2, [0.3, 0.7])
    torch.testing.assert_close(dict(state), dict(expected), rtol=1e-5, atol=1e-6)
    merged = found.merge(0.3, fusion=fusion, repair=False)
    torch.testing.assert_close(merged.state_dict(), dict(state), check_dtype=False)
    assert isinstance(merged, type(first))
    # Batch norm is measured as after a plain mean, and REPAIR does what it does.
    measured = found.merge(0.3, fusion=fusion).state_dict()
    torch.testing.assert_close(measured["flat.weight"], state["flat.weight"])
    assert not torch.allclose(measured["norm.running_mean"], state["norm.running_mean"])
    repaired = found.merge(0.3, fusion=fusion, repair=True).state_dict()
    assert not torch.allclose(repaired["depth.weight"], state["depth.weight"])


def test_owners_measure_and_a_pair_aligned_by_weights_is_fused() -> None:
    nets, x = [mlp(0), mlp(1)], points(30)
    found = sr.align(*nets, example_inputs=x, symmetry="permutation")
    with pytest.raises(DataError, match="data for fusion='regmean' but got none: pass data="):
        found.merge(fusion="regmean")
    grams = [sr.gram_matrices(net, [x]) for net in nets]
    merged = found.merge(fusion="regmean", data=grams)
    expected = sr.regmean(nets, [identity(found.alignment.spec), found.alignment], grams)
    torch.testing.assert_close(merged.state_dict(), dict(expected))


def test_fused_trunks_have_each_head() -> None:
    first, x = mlp(0), points(30)
    second = nn.Sequential(*list(mlp(1))[:4], nn.Linear(5, 9)).double()
    found = sr.align(first, second, example_inputs=x, ignore=["4"], symmetry="permutation")
    data = [[x], [x]]
    both = found.merge(fusion="regmean", data=data, heads="each")
    state = found.fused("regmean", data=data)
    trunk = nn.Sequential(*list(mlp(0))[:4])
    trunk.load_state_dict({n: t for n, t in state.items() if n[0] != "4"})
    head = found.alignment.apply(second)
    torch.testing.assert_close(both(x)["reference"], first[4](trunk(x)))
    torch.testing.assert_close(
        both(x)["target"], nn.functional.linear(trunk(x), head["4.weight"], head["4.bias"])
    )
    alignments = [identity(found.alignment.spec), found.alignment]
    many = sr.ManyAlignment(tuple(alignments)).merge(
        [first, second], fusion="regmean", data=data, heads="each"
    )
    torch.testing.assert_close(list(many(x).values()), list(both(x).values()))


def test_faults_are_named() -> None:
    nets, x = [mlp(0), mlp(1)], points()
    many = sr.match_many(nets, sr.discover_symmetry(nets[0], x))
    with pytest.raises(DataError, match=r"one of mean, fisher, regmean, regmean\+\+, .* but got 'median'"):
        many.merge(nets, fusion="median", data=[[x], [x]])  # type: ignore[call-overload]
    with pytest.raises(DataError, match="data for fusion='fisher' but got none"):
        many.merge(nets, fusion="fisher")


def test_measured_networks_are_refused_where_the_alignment_changed_their_form() -> None:
    torch.manual_seed(0)
    nets, x = [nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5)) for _ in range(2)], torch.randn(40, 6)
    found = sr.align(*nets, example_inputs=x)
    assert found.rebasin.continuous
    with pytest.raises(DataError, match="canonical form, but got GramMatrices"):
        found.merge(fusion="regmean", data=[sr.gram_matrices(net, [x]) for net in nets])
    state = found.fused("regmean", data=[[x], [x]])
    assert state.fitted == ("0.weight", "1.weight")
    torch.testing.assert_close(found.merge(fusion="regmean", data=[[x], [x]]).state_dict(), dict(state))
