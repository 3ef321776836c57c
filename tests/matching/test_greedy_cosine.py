from __future__ import annotations

from itertools import permutations as orders

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching import Alignment, greedy_cosine
from sinkhorn_rebasin.matching.greedy_cosine import greedy_assignment
from sinkhorn_rebasin.permutations import PermutationSpec
from tests.matcher_contract import DeterministicMatcherContract, equal
from tests.planted import planted_case, planted_wide


class TestGreedyCosine(DeterministicMatcherContract):
    cases = (*DeterministicMatcherContract.cases, "resnet_option_a", "glu", "shared_layer")

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        return greedy_cosine(reference, target, spec, data=[inputs], generator=generator)


def test_rescaled_units_are_recognised() -> None:
    problem = planted_wide("mlp")
    scale = torch.logspace(-1, 1, 64)
    target = dict(problem.target)
    target["0.weight"] = target["0.weight"] * scale[:, None]
    target["0.bias"] = target["0.bias"] * scale
    target["2.weight"] = target["2.weight"] / scale
    assert equal(
        greedy_cosine(problem.reference, target, problem.spec.without("2")).permutations,
        {"0": problem.answer["0"]},
    )


def test_nested_groups_are_refused_by_name() -> None:
    problem = planted_case("grouped")
    nested = next(group.name for group in problem.spec.groups if group.parent is not None)
    with pytest.raises(SpecError, match=f"{nested!r} inside"):
        greedy_cosine(problem.reference, problem.target, problem.spec)


@pytest.mark.parametrize("seed", range(5))
def test_the_most_similar_pair_comes_first(seed: int) -> None:
    # Of all orders, the one whose values, largest first, come last in the dictionary.
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
    indices, value = greedy_assignment(similarity)
    best = max(
        orders(range(5)),
        key=lambda order: sorted((float(similarity[i, j]) for i, j in enumerate(order)))[::-1],
    )
    assert tuple(indices.tolist()) == best
    assert value == pytest.approx(float(similarity[torch.arange(5), indices].sum()))
