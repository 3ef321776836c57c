from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging import match_many, merge_many
from sinkhorn_rebasin.merging.match_many import ManyMethod
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations, inverse, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matcher_contract import equal
from tests.planted import planted, planted_wide


def unrelated(count: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3))
        for _ in range(count)
    ]


@pytest.mark.parametrize("method", ["merge_many", "universe", "frank_wolfe"])
@pytest.mark.parametrize("name", ["mlp", "conv_batch_norm"])
def test_planted_permutations_of_several_networks_are_found(name: str, method: ManyMethod) -> None:
    problem = planted_wide(name)
    networks, answers = [problem.reference], [identity_permutations(problem.spec)]
    for seed in (5, 6, 7):
        state, planting = planted(problem.reference, problem.spec, torch.Generator().manual_seed(seed))
        noise = torch.Generator().manual_seed(seed)
        networks.append(
            {
                key: tensor + 0.02 * torch.randn(tensor.shape, generator=noise)
                if tensor.is_floating_point()
                else tensor
                for key, tensor in state.items()
            }
        )
        answers.append(inverse(problem.spec, planting))
    alignments = match_many(networks, problem.spec, method=method)
    for alignment, answer in zip(alignments, answers, strict=True):
        assert equal(alignment.permutations, answer)
        assert alignment.converged
    merged = merge_many(networks, alignments)
    for key, tensor in tensors_of(problem.reference).items():
        torch.testing.assert_close(merged[key].float(), tensor.float(), atol=0.1, rtol=0)


@pytest.mark.parametrize("method", ["merge_many", "universe"])
def test_rounds_raise_the_sum_over_all_pairs_above_matching_to_the_first(method: ManyMethod) -> None:
    networks = unrelated(4)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    alignments = match_many(networks, spec, method=method)
    assert equal(alignments[0].permutations, identity_permutations(spec))
    objective = alignments.objective
    assert len(objective) > 1
    assert all(later >= before - 1e-9 for before, later in itertools.pairwise(objective))
    # In the mean of all each network holds itself where it is.
    assert objective[-1] > objective[0] or method == "universe"
    moved = [each.apply(net) for each, net in zip(alignments, networks, strict=True)]
    pairs = sum(
        float((moved[p][name].double() * moved[q][name].double()).sum())
        for p in range(4)
        for q in range(p)
        for name in spec.parameters
    )
    assert pairs == pytest.approx(objective[-1])


def test_networks_are_neither_changed_nor_asked_to_be_few() -> None:
    networks = unrelated(3)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in networks]
    alignments = match_many(networks, spec, seconds=1e-9)
    assert not alignments.converged
    merge_many(networks, alignments, [0.5, 0.25, 0.25])
    assert all(equal(old, net.state_dict()) for old, net in zip(before, networks, strict=True))
    with pytest.raises(ArchitectureError, match="at least two networks"):
        match_many(networks[:1], spec)
    with pytest.raises(ArchitectureError, match="one network an alignment, 2, but got 3"):
        merge_many(networks, alignments[:2])


def test_shares_weigh_the_networks() -> None:
    networks = unrelated(2)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    order = random_permutations(spec, generator=torch.Generator().manual_seed(1))
    alignments = [Alignment(identity_permutations(spec), spec), Alignment(order, spec)]
    merged = merge_many(networks, alignments, [0.75, 0.25])
    moved = permute_state(networks[1].state_dict(), spec, order)
    for name, tensor in networks[0].state_dict().items():
        torch.testing.assert_close(merged[name], 0.75 * tensor + 0.25 * moved[name])
