from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import SinkhornRebasin, random_permutations
from sinkhorn_rebasin.errors import DataError, LossError, SpecError
from sinkhorn_rebasin.merging import BothOutputsLoss, match_outputs, merge_trunks
from sinkhorn_rebasin.permutations import inverse
from tests.merging.zipped_networks import mlp, spec_of


def planted(outputs: int) -> tuple[nn.Module, nn.Module, torch.Tensor, dict[str, torch.Tensor]]:
    """Two networks of one trunk in two orders, with a head each."""
    torch.manual_seed(0)
    first, x = mlp(), torch.randn(60, 5)
    spec = spec_of(first, x)
    second = mlp(outputs)
    orders = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        second[0].weight.copy_(first[0].weight[orders["0"]])
        second[0].bias.copy_(first[0].bias[orders["0"]])
        second[2].weight.copy_(first[2].weight[orders["2"]][:, orders["0"]])
        second[2].bias.copy_(first[2].bias[orders["2"]])
    return first, second, x, inverse(spec, orders)


def test_the_loss_is_that_of_both_heads_on_the_mean_trunk() -> None:
    first, second, x, answer = planted(2)
    spec = spec_of(first, x)
    rebasin = SinkhornRebasin(first, second, spec=spec.ignoring("4"), start=answer).eval()
    loss = BothOutputsLoss(first, second, spec)
    assert float(loss(rebasin, x)) < 1e-10
    stays = {name: torch.arange(len(order)) for name, order in answer.items()}
    other = SinkhornRebasin(first, second, spec=spec.ignoring("4"), start=stays).eval()
    trunk = copy.deepcopy(first)
    with torch.no_grad():
        for mine, theirs in zip(trunk[:4].parameters(), second[:4].parameters(), strict=True):
            mine.copy_((mine + theirs) / 2)
    hidden = trunk[:4](x)
    errors = [
        (head(hidden) - network(x)).square().mean() / network(x).var(correction=0)
        for head, network in ((first[4], first), (second[4], second))
    ]
    torch.testing.assert_close(loss(other, x), sum(errors), rtol=1e-4, atol=1e-6)


def test_learning_finds_planted_orders_and_never_worsens_the_start() -> None:
    first, second, x, answer = planted(2)
    spec = spec_of(first, x)
    stays = {name: torch.arange(len(order)) for name, order in answer.items()}
    found = match_outputs(first, second, spec, data=[x], start=stays, steps=150, every=10)
    assert min(found.objective) < 0.3 * found.objective[0]
    kept = match_outputs(first, second, spec, data=[x], start=answer, steps=10, lr=5.0, every=5)
    assert all(torch.equal(kept.permutations[name], order) for name, order in answer.items())
    merged = merge_trunks(first, second, spec, kept, data=[x])
    torch.testing.assert_close(merged.network(x), torch.cat([first(x), second(x)], 1), rtol=0, atol=1e-5)


def test_bad_input_is_refused_by_name() -> None:
    first, second, x, _ = planted(2)
    spec = spec_of(first, x)
    with pytest.raises(DataError, match="but got None"):
        match_outputs(first, second, spec)
    with pytest.raises(DataError, match="at least one batch"):
        match_outputs(first, second, spec, data=[])
    with pytest.raises(DataError, match="at least one batch"):
        match_outputs(first, second, spec, data=[], validation=[x])
    with pytest.raises(SpecError, match="every=0"):
        match_outputs(first, second, spec, data=[x], every=0)
    with pytest.raises(LossError, match="at least one last layer"):
        BothOutputsLoss(first, mlp(3), spec, heads=())
