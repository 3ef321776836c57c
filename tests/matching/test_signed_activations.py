"""Activation matching chooses the signs that a group of any network has, exactly."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import RebasinWarning
from sinkhorn_rebasin.matching import activation_matching
from sinkhorn_rebasin.matching.signed_activations import best_signs
from sinkhorn_rebasin.permutations import (
    Layout,
    ScaleSymmetry,
    Slot,
    inverse,
    permute_state,
    random_permutations,
    rescale_state,
)
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
from tests.rebasin.rescaled_networks import NETWORKS, built, factors
from tests.symmetry.witness import difference, loaded

SIGNED = [name for name, network in NETWORKS.items() if network.sign]


@pytest.mark.parametrize("similarity", ["correlation", "uncentred"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SIGNED)
def test_planted_signs_are_undone(name: str, seed: int, similarity: str) -> None:
    net, inputs, spec, rescaling = built(name, torch.float32)
    torch.manual_seed(seed)
    more = torch.cat([inputs, *(NETWORKS[name].make_inputs() for _ in range(8))])
    signs = factors(spec, rescaling, seed, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    moved = permute_state(rescale_state(net.state_dict(), spec, rescaling, signs=signs), spec, shuffle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RebasinWarning)  # of packed attention, which nothing shows
        found = activation_matching(
            net, loaded(net, moved), spec, data=[more], rescaling=rescaling, similarity=similarity
        )
    back = found.apply(moved)
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())
    assert all(torch.equal(p, inverse(spec, shuffle)[n]) for n, p in found.permutations.items())


@pytest.mark.parametrize("name", SIGNED)
def test_signs_are_the_best_and_keep_the_function(name: str) -> None:
    net, inputs, spec, rescaling = built(name)
    other = NETWORKS[name].make().double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RebasinWarning)
        found = activation_matching(net, other, spec, data=[inputs], rescaling=rescaling)
        plain = activation_matching(net, other, spec, data=[inputs])
    assert found.objective[0] >= plain.objective[0] - 1e-12
    assert (plain.signs, plain.rescaling) == ({}, None)
    assert difference(other, found.apply(other), inputs) < 1e-12


class Even(nn.Module):
    """A recurrent layer of which the absolute values alone are read."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.r(x)[0].abs())


class Product(nn.Module):
    """The product of two linear layers, each with a sign of its own: what is read last shows that of both alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(n, m)) for n, m in ((3, 6), (3, 6), (6, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.a) * (x @ self.b)) @ self.c


@pytest.mark.parametrize(("make", "generators"), [(Even, 1), (Product, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_signs_that_the_last_result_hides_are_found(
    make: type[nn.Module], generators: int, seed: int
) -> None:
    torch.manual_seed(seed)
    net, x = make().eval(), torch.randn(30, 5, 3)
    spec = discover_symmetry(net, x)
    rescaling = discover_rescaling(net, spec, x)
    (name,) = spec.names
    assert len(rescaling.of(name, "sign")) == generators
    signs = factors(spec, rescaling, seed, torch.float32)[1]
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    moved = permute_state(rescale_state(net.state_dict(), spec, rescaling, signs=signs), spec, shuffle)
    found = activation_matching(net, loaded(net, moved), spec, data=[x], rescaling=rescaling)
    assert all(torch.equal(found.apply(moved)[key], tensor) for key, tensor in net.state_dict().items())


class Inside(nn.Module):
    """A norm between the layer and its activation: the sign is that of the norm's own scale and shift."""

    def __init__(self, act: str) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(torch, self.act)(self.norm(self.first(x)))
        return self.second(x)


@pytest.mark.parametrize(("act", "signs"), [("tanh", 1), ("relu", 0)])
def test_a_norm_shows_the_sign_of_its_own_scale(act: str, signs: int) -> None:
    torch.manual_seed(0)
    net, x = Inside(act), torch.randn(40, 3)
    spec = discover_symmetry(net, x)
    rescaling = discover_rescaling(net, spec, x)
    assert sum(one.kind == "sign" for one in rescaling.generators) == signs
    drawn = factors(spec, rescaling, 0, torch.float32)[1]
    moved = rescale_state(net.state_dict(), spec, rescaling, signs=drawn)
    found = activation_matching(net, moved, spec, data=[x], rescaling=rescaling)
    assert all(torch.equal(found.signs[name].float(), value) for name, value in drawn.items())


@pytest.mark.parametrize("seed", range(10))
def test_pairs_are_worth_the_most_over_all_patterns(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    slot = Slot("a", "w", (0,), Layout(1, 4))
    patterns = SignPatterns(tuple(ScaleSymmetry("a", "sign", ((slot, 1),)) for _ in range(2)))
    values = torch.randn(5, 4, 4, generator=generator, dtype=torch.float64)
    parities = torch.randint(-1, 2, (2, 5), generator=generator)
    found = best_signs(values, tuple(map(tuple, parities.tolist())), patterns)
    read = [k for k in range(5) if (parities[:, k] >= 0).all()]
    if not read:
        assert found is None
        return
    assert found is not None
    for i, j in itertools.product(range(4), range(4)):
        worth = [
            sum(values[k, i, j] * (signs ** parities[:, k].double()).prod() for k in read)
            for signs in patterns.signs
        ]
        assert float(found.worth[i, j]) == pytest.approx(float(max(worth)))
        assert float(worth[int(found.pattern[i, j])]) == pytest.approx(float(max(worth)))
