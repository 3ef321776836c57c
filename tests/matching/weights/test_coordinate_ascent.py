"""Weight matching up to the signs of units: planted signs, exhaustive search, an objective that never falls."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.matching.weights.similarity import signed_similarity, unit_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import (
    Group,
    PermutationSpec,
    RescalingSpec,
    identity_permutations,
    permute_state,
    random_permutations,
    rescale_state,
)
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.matcher_contract import MatcherContract
from tests.rebasin.rescaled_networks import NETWORKS, built, factors
from tests.symmetry.witness import difference


def deep(depth: int, width: int, bias: bool = True) -> nn.Module:
    """A tanh network of this many hidden layers."""
    sizes = [6, *[width] * depth, 4]
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(sizes):
        layers += [nn.Linear(one, two, bias), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def recurrent() -> nn.Module:
    """An RNN, whose hidden units lie on both axes of one weight."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(6, 12, batch_first=True), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return Last()


def convolution() -> nn.Module:
    """A small convolution network with tanh."""
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 3), nn.Tanh(), nn.Conv2d(8, 12, 3), nn.Tanh()), nn.Flatten(), nn.Linear(12, 3)
    )


def attention() -> nn.Module:
    """Heads whose queries, keys and values lie in one tensor."""

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x, need_weights=False)[0].tanh())

    return Attend()


PLANTED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "narrow": (lambda: deep(2, 10), (5, 6)),
    "deep": (lambda: deep(4, 24), (5, 6)),
    "without bias": (lambda: deep(3, 24, bias=False), (5, 6)),
    "recurrent": (recurrent, (2, 5, 6)),
    "convolution": (convolution, (2, 2, 5, 5)),
    "attention": (attention, (2, 5, 12)),
}


@cache
def symmetries_of(name: str) -> tuple[PermutationSpec, RescalingSpec]:
    """What is found in a network, once for all weights."""
    make, shape = PLANTED[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = make(), torch.randn(shape)
    spec = discover_symmetry(model, inputs)
    return spec, discover_rescaling(model, spec, inputs)


def problem(name: str, seed: int) -> tuple[nn.Module, dict[str, Tensor], PermutationSpec, RescalingSpec]:
    """A network, and its tensors with random signs and in random order."""
    make, shape = PLANTED[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, _ = make(), torch.randn(shape)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data.normal_(std=0.3)
    spec, rescaling = symmetries_of(name)
    _, signs = factors(spec, rescaling, seed, torch.float32)
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    flipped = rescale_state(tensors_of(model), spec, rescaling, signs=signs)
    return model, permute_state(flipped, spec, shuffle), spec, rescaling


def apart(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max().detach()) for name in one)


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(3))
def test_planted_signs_and_orders_are_undone(name: str, seed: int) -> None:
    model, target, spec, rescaling = problem(name, seed)
    assert all(bool((signs < 0).any()) for signs in factors(spec, rescaling, seed)[1].values())
    found = weight_matching(model, target, spec, rescaling=rescaling)
    assert apart(tensors_of(model), found.apply(target)) < 1e-6
    assert found.converged
    assert apart(tensors_of(model), weight_matching(model, target, spec).apply(target)) > 1e-2


@pytest.mark.parametrize("seed", range(5))
def test_one_hidden_layer_reaches_the_best_of_all_signs_and_orders(seed: int) -> None:
    torch.manual_seed(seed)
    reference, target = (nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)) for _ in range(2))
    spec = discover_symmetry(reference, torch.randn(3, 2))
    rescaling = discover_rescaling(reference, spec, torch.randn(3, 2))
    found = weight_matching(reference, target, spec, rescaling=rescaling)
    ours, best = [p.detach().double() for p in reference.parameters()], -float("inf")
    w, b, v, c = [p.detach().double() for p in target.parameters()]
    for order in map(list, itertools.permutations(range(4))):
        for signs in itertools.product((1.0, -1.0), repeat=4):
            s = torch.tensor(signs).double()
            theirs = (s[:, None] * w[order], s * b[order], v[:, order] * s, c)
            best = max(best, sum(float((a * z).sum()) for a, z in zip(ours, theirs, strict=True)))
    assert found.objective[-1] == pytest.approx(best, rel=1e-6)
    assert found.objective[-1] > weight_matching(reference, target, spec).objective[-1]


@pytest.mark.parametrize("name", [n for n, network in NETWORKS.items() if network.sign])
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_never_falls_is_what_it_says_and_the_function_stays(name: str, seed: int) -> None:
    reference, inputs, spec, rescaling = built(name)
    target = built(name)[0]
    torch.manual_seed(seed)
    for parameter in target.parameters():
        parameter.data.normal_()
    found = weight_matching(
        reference, target, spec, rescaling=rescaling, generator=torch.Generator().manual_seed(seed)
    )
    moved, own = found.apply(target), tensors_of(reference)
    value = sum(float((own[key].detach() * moved[key]).sum()) for key in spec.parameters)
    assert found.objective[-1] == pytest.approx(value, rel=1e-9)
    assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(found.objective))
    assert difference(target, moved, inputs) < 1e-12
    assert {key: tuple(signs.shape) for key, signs in found.signs.items()} == rescaling.shapes(spec, "sign")
    assert all(bool((signs.abs() == 1).all()) for signs in found.signs.values())
    assert found.objective[-1] >= weight_matching(reference, target, spec).objective[-1] * (1 - 1e-9)


@pytest.mark.parametrize("name", ["tanh", "packed_attention", "linear"])
def test_similarity_under_a_pattern_is_that_of_the_flipped_target(name: str) -> None:
    reference, _, spec, rescaling = built(name)
    target = {key: tensor.detach().flip(0) for key, tensor in tensors_of(reference).items()}
    identity = identity_permutations(spec)
    for group in spec.groups:
        patterns = SignPatterns.of(rescaling, group.name)
        standing = Standing(tensors_of(reference), target, spec, identity, rescaling=rescaling)
        found = signed_similarity(standing, group)
        assert found.shape == (2 ** len(patterns.generators), group.blocks, group.size, group.size)
        for signs, similarity in zip(patterns.signs, found, strict=True):
            flips = {group.name: signs.reshape(-1, *[1] * len(group.shape)).expand(-1, *group.shape)}
            flipped = rescale_state(target, spec, rescaling, signs=flips if len(signs) else None)
            expected = unit_similarity(replace(standing, target=flipped), group)
            torch.testing.assert_close(similarity, expected)


def test_half_precision_stays_what_it_is() -> None:
    model, target, spec, rescaling = problem("narrow", 0)
    state = {name: tensor.bfloat16() for name, tensor in target.items()}
    moved = weight_matching(model.bfloat16(), state, spec, rescaling=rescaling).apply(state)
    assert all(tensor.dtype == torch.bfloat16 for tensor in moved.values())


class TestSignedWeightMatching(MatcherContract):
    """The contract holds when signs may be chosen, where there are any and where there are none."""

    cases = (*MatcherContract.cases, "residual_mlp")
    rescalings: dict[object, RescalingSpec] = {}

    def match(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> Alignment:
        architecture = spec, tuple(type(module) for module in reference.modules())
        if architecture not in self.rescalings:
            self.rescalings[architecture] = discover_rescaling(reference, spec, inputs)
        rescaling = self.rescalings[architecture]
        return weight_matching(reference, target, spec, rescaling=rescaling, generator=generator)


def test_groups_without_generators_have_one_pattern() -> None:
    patterns = SignPatterns.of(RescalingSpec(groups=()), Group("a", 3).name)
    assert patterns.signs.shape == (1, 0)
