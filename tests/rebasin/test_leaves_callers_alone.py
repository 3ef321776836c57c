"""Building, training and reading a re-basin changes nothing of its caller's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin import SinkhornRebasin
from tests.rebasin.rebasin_problems import NETWORKS, built, call, inputs, network


def leaves(given: Any) -> list[Tensor]:
    if isinstance(given, dict):
        return list(given.values())
    return list(given) if isinstance(given, tuple) else [given]


class TestCallersAreLeftAlone:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_networks_inputs_and_random_state_are_bit_identical(self, name: str) -> None:
        reference, target, given = network(name, 1), network(name, 2), inputs(name)
        next(iter(reference.parameters())).requires_grad_(False)
        call(target, given).sum().backward()
        pair = (reference, target)
        before = [copy.deepcopy(net) for net in pair]
        gradients = [None if p.grad is None else p.grad.clone() for net in pair for p in net.parameters()]
        given_before, random_before = copy.deepcopy(given), torch.get_rng_state()
        rebasin = SinkhornRebasin(reference, target, given)
        rebasin(given, at=0.5).sum().backward()
        with torch.no_grad():
            for parameter in rebasin.parameters():
                parameter.add_(1)
        rebasin.eval()
        rebasin.to_model(), rebasin.merge(), rebasin.path(), rebasin.double()
        assert torch.equal(torch.get_rng_state(), random_before)
        for net, kept in zip(pair, before, strict=True):
            for (key, one), (_, other) in zip(
                net.state_dict().items(), kept.state_dict().items(), strict=True
            ):
                assert torch.equal(one, other), key
            assert [m.training for m in net.modules()] == [m.training for m in kept.modules()]
            flags = [[p.requires_grad for p in one.parameters()] for one in (net, kept)]
            assert flags[0] == flags[1]
        for parameter, gradient in zip([p for n in pair for p in n.parameters()], gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(parameter.grad, gradient)
        assert all(torch.equal(a, b) for a, b in zip(leaves(given), leaves(given_before), strict=True))

    def test_noise_draws_from_the_generator_or_the_global_state(self) -> None:
        before = torch.get_rng_state()
        one, other = (built(spec=None, check=True)[2] for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(one.scores[k], other.scores[k]) for k in one.scores)
        built(generator=None, spec=None, check=True)
        assert not torch.equal(torch.get_rng_state(), before)

    def test_later_changes_of_the_callers_networks_do_not_reach_the_rebasin(self) -> None:
        reference, target, rebasin = built()
        rebasin.eval()
        before = rebasin(inputs("mlp"), at=0.5)
        with torch.no_grad():
            for parameter in [*reference.parameters(), *target.parameters()]:
                parameter.zero_()
        assert torch.equal(rebasin(inputs("mlp"), at=0.5), before)

    def test_given_scores_are_copied(self) -> None:
        scores = {"0": torch.rand(8, 8), "2": torch.rand(8, 8, requires_grad=True)}
        kept = {name: value.detach().clone() for name, value in scores.items()}
        _, _, rebasin = built(start=scores, noise=0.0)
        assert all(torch.equal(rebasin.scores[name], kept[name]) for name in kept)
        with torch.no_grad():
            for parameter in rebasin.parameters():
                parameter.zero_()
        assert all(torch.equal(scores[name], kept[name]) for name in kept)
