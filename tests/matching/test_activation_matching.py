from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError, DataError, RebasinWarning, SpecError
from sinkhorn_rebasin.matching import Alignment, activation_matching
from sinkhorn_rebasin.matching.activation_assignment import assign_all
from sinkhorn_rebasin.permutations import Group, PermutationSpec, inverse, random_permutations
from sinkhorn_rebasin.permutations.algebra import unit_movement
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import randomise
from tests.matcher_contract import MatcherContract, equal
from tests.planted import planted_case, planted_network


class TestCorrelation(MatcherContract):
    similarity = "correlation"

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        halves = [inputs[: len(inputs) // 2], (inputs[len(inputs) // 2 :], None)]
        return activation_matching(
            reference, target, spec, data=halves, generator=generator, similarity=self.similarity
        )


class TestUncentred(TestCorrelation):
    similarity = "uncentred"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.first(tokens)
        q, k, v = (layer(tokens).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.last(tokens + self.out(mixed.transpose(1, 2).flatten(2)))


def grouped() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, groups=4), nn.GroupNorm(4, 24)),
        *(nn.ReLU(), nn.Conv2d(24, 5, 1)),
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "shape"), [(Attention, (8, 6, 5)), (grouped, (4, 3, 8, 8))], ids=["attention", "grouped"]
)
def test_planted_nested_permutations_are_recovered(
    make: type[nn.Module], shape: tuple[int, ...], seed: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        problem = planted_network(randomise(make()).eval(), torch.randn(shape), seed)
    assert any(group.parent for group in problem.spec.groups)
    found = activation_matching(problem.reference, problem.target, problem.spec, data=[problem.inputs])
    assert equal(found.permutations, problem.answer)
    assert found.weight_matched == ()


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.first(tokens)
        return self.last(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])


@pytest.mark.parametrize("seed", range(3))
def test_what_no_layer_shows_is_matched_by_weights_and_told(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        problem = planted_network(Packed().eval(), torch.randn(8, 6, 5), seed)
    with pytest.warns(RebasinWarning, match=r"'attention', 'attention#2', 'attention#3'"):
        found = activation_matching(problem.reference, problem.target, problem.spec, data=[problem.inputs])
    assert set(found.weight_matched) == {
        group.name
        for group in problem.spec.groups
        if not any(slot.tensor.startswith("first") for slot in problem.spec.slots_of(group.name))
    }
    assert 0 < len(found.weight_matched) < len(problem.spec.groups)
    moved = found.apply(problem.target)
    assert all(torch.equal(moved[name], tensor) for name, tensor in problem.reference.state_dict().items())


DEEP = PermutationSpec(
    groups=(Group("a", 3), Group("b", 2, blocks=3, parent="a"), Group("c", 2, blocks=6, parent="b")),
    slots=(),
    shapes={},
)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_inside_of_blocks_follow_what_they_live_in(seed: int) -> None:
    planted = random_permutations(DEEP, generator=torch.Generator().manual_seed(seed))
    alike = {}
    for group in DEEP.groups[1:]:
        alike[group.name] = torch.zeros(group.units, group.units)
        alike[group.name][unit_movement(DEEP, planted, group.name), torch.arange(group.units)] = 1
    permutations, decided, total = assign_all(DEEP, alike)
    assert equal(permutations, inverse(DEEP, planted))
    assert (decided, total) == ({"a", "b", "c"}, 18)


def test_what_lives_in_unseen_blocks_waits_for_them() -> None:
    assert assign_all(DEEP, {"c": torch.eye(12)})[1] == set()


def test_behaviour_counts_where_weights_mislead() -> None:
    # Scaled by 100, an input that is always zero drowns all other weights, but is never seen at work.
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(64, 6)
    inputs[:, 0] = 0
    problem = planted_network(net, inputs)
    target = dict(problem.target)
    target["0.weight"] = target["0.weight"].clone()
    target["0.weight"][:, 0] = 100 * torch.randn(8)
    found = activation_matching(net, target, problem.spec, data=[inputs])
    assert equal(found.permutations, problem.answer)


def test_only_correlation_looks_past_scale_and_bias() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(64, 6)
    problem = planted_network(net, inputs)
    scale = torch.logspace(-2, 2, 8)
    target = {**problem.target, "0.weight": problem.target["0.weight"] * scale[:, None]}
    target["0.bias"] = problem.target["0.bias"] * scale + 500 * torch.randn(8)
    found = activation_matching(net, target, problem.spec, data=[inputs])
    assert equal(found.permutations, problem.answer)
    other = activation_matching(net, target, problem.spec, data=[inputs], similarity="uncentred")
    assert not equal(other.permutations, problem.answer)


def test_it_needs_data_and_a_network() -> None:
    problem = planted_case("mlp_relu")
    with pytest.raises(DataError, match="None"):
        activation_matching(problem.reference, problem.target, problem.spec)
    with pytest.raises(DataError, match="at least one batch"):
        activation_matching(problem.reference, problem.target, problem.spec, data=[])
    with pytest.raises(ArchitectureError, match="two states"):
        activation_matching(
            problem.reference.state_dict(), problem.target, problem.spec, data=[problem.inputs]
        )
    twin = copy.deepcopy(problem.reference).double()
    with pytest.raises(
        ArchitectureError, match=r"one type in both networks but got torch\.float32 and torch\.float64"
    ):
        activation_matching(problem.reference, twin, problem.spec, data=[problem.inputs])
    with pytest.raises(SpecError, match="cosine"):
        activation_matching(
            *(problem.reference, problem.target, problem.spec), data=[problem.inputs], similarity="cosine"
        )


def test_weights_used_twice_are_seen_each_time() -> None:
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(4, 12), nn.Linear(12, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            return self.last(self.again(self.again(x).relu()).relu())

    net, inputs = Twice(), torch.randn(32, 4)
    spec = discover_symmetry(net, inputs)
    problem = planted_network(net, inputs)
    found = activation_matching(net, problem.target, spec, data=[inputs])
    assert equal(found.permutations, problem.answer)
