"""Pairs whose embedding is the head too: they turn once they are untied or expanded, and only when asked to."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.permutations import random_maps
from sinkhorn_rebasin.permutations.continuous import transform_state

TOKENS = torch.randint(9, (4, 3), generator=torch.Generator().manual_seed(0))


class Language(nn.Module):
    """A stream of tokens that its own embedding reads in the end."""

    def __init__(self, borrowed: bool) -> None:
        super().__init__()
        self.words, self.inner, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 5), nn.Linear(5, 6)
        self.head = None if borrowed else nn.Linear(6, 9, bias=False)
        if self.head is not None:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.words(tokens)
        stream = self.norm(stream + self.down(F.gelu(self.up(self.inner(stream)))))
        return F.linear(stream, self.words.weight) if self.head is None else self.head(stream)


@functools.cache
def language(borrowed: bool) -> Language:
    """One such network, its gains and shifts away from one and zero."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Language(borrowed)
        with torch.no_grad():
            for parameter in (*network.norm.parameters(), *network.inner.parameters()):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def turned(network: nn.Module) -> nn.Module:
    """A network in canonical form, carried along a random element of all its symmetries."""
    spec = sr.discover_symmetry(network, TOKENS)
    continuous = sr.discover_continuous(network, spec, TOKENS)
    twin = copy.deepcopy(sr.canonicalize(network, spec, continuous, TOKENS))
    generator = torch.Generator().manual_seed(2)
    maps = random_maps(continuous, generator=generator)
    permutations = sr.random_permutations(spec, generator=generator)
    state = transform_state(twin.double().state_dict(), spec, continuous, maps, permutations)
    twin.load_state_dict(state)
    return twin.float()


def align(*networks: nn.Module, **options: Any) -> sr.AlignmentResult:
    return sr.align(*networks, example_inputs=TOKENS, **options)


@pytest.mark.parametrize(("way", "borrowed"), [("expand", True), ("expand", False), ("untie", False)])
def test_a_pair_turns_once_it_is_asked_to_grow(way: str, borrowed: bool) -> None:
    network = language(borrowed)
    names = sorted(network.state_dict())
    result = align(network, network, **{way: True})
    assert "words" in result.rebasin.continuous
    told = [note for note in result.notes if note.startswith(way.rstrip("e"))]
    more = 6 * 6 if way == "expand" else 9 * 6
    more += 6 if way == "expand" else 0
    assert len(told) == 1
    assert f" {more} parameters more" in told[0]
    torch.testing.assert_close(result.to_model()(TOKENS), network(TOKENS), atol=1e-5, rtol=1e-4)
    assert result.function_change < 1e-5
    assert sorted(network.state_dict()) == names


def test_a_pair_that_is_not_asked_to_grow_says_why_it_is_permuted() -> None:
    result = align(language(True), language(True))
    assert not result.rebasin.continuous
    assert any("'norm.weight'" in note for note in result.notes)
    assert sorted(result.to_model().state_dict()) == sorted(language(True).state_dict())


def test_a_planted_turn_of_an_expanded_network_is_undone() -> None:
    reference = sr.expand(language(True), ["norm.weight"], TOKENS)
    target = turned(reference)
    moved = align(reference, target).rebasin
    first, second = moved.reference_state(), moved.rebased_state(hard=True)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=0)
    assert not torch.allclose(target.words.weight, first["words.weight"], atol=0.1)


def test_a_network_without_such_a_gain_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 2))
    result = sr.align(network, network, example_inputs=torch.randn(4, 3), expand=True)
    assert any(note.startswith("not expanded") for note in result.notes)
    assert sorted(result.to_model().state_dict()) == sorted(network.state_dict())


def test_growing_needs_a_reason() -> None:
    network = language(True)
    with pytest.raises(ArchitectureError, match="under two names"):
        align(network, network, untie=True)
    with pytest.raises(SpecError, match="permutations need no matrix"):
        align(network, network, expand=True, symmetry="permutation")
    spec = sr.discover_symmetry(network, TOKENS)
    with pytest.raises(ArchitectureError, match="larger networks"):
        sr.align(network, network, spec=spec, expand=True)
