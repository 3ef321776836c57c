"""Alignments that are given: those whose maps act on canonical forms, those of other bases, and what is none."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.receipt import Receipt
from sinkhorn_rebasin.networks.copying import standalone_copy
from tests.carrying.networks import mlp, tuned_from


class Tokens(nn.Module):
    """A residual block on embeddings, read by them again: the gain of its last norm cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(10, 6), nn.LayerNorm(6)
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.last(x) @ self.embedding.weight.T


def test_a_fine_tune_that_maps_cannot_carry_is_carried_by_permutations_and_that_is_said() -> None:
    tokens = torch.arange(10).reshape(2, 5)
    torch.manual_seed(0)
    base, new_base = Tokens().eval(), Tokens().eval()
    tuned = tuned_from(base)
    way = sr.carrying.ByWeights()
    update = sr.carry(tuned, base, new_base, scale=1.0, way=way, example_inputs=tokens)
    assert any(note.startswith("permutations alone: ") and "'last.weight'" in note for note in update.notes)
    assert not update.frame
    same_gain = tuned_from(base)
    with torch.no_grad():
        same_gain.last.weight.fill_(1.0)
    assert sr.carry(same_gain, base, new_base, scale=1.0, way=way, example_inputs=tokens).frame


class Untied(Tokens):
    """The same with a head of its own, so that maps carry all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.head(self.last(x))


def test_maps_that_are_given_bring_a_tuned_gain_into_canonical_form() -> None:
    tokens = torch.arange(10).reshape(2, 5)
    torch.manual_seed(0)
    base = Untied().eval()
    new_base, tuned = standalone_copy(base), tuned_from(base)
    spec = sr.discover_symmetry(base, tokens)
    continuous = sr.discover_continuous(base, spec, tokens)
    maps = sr.random_maps(continuous, generator=torch.Generator().manual_seed(0))
    order = {name: each for name, each in sr.identity_permutations(spec).items() if name not in maps}
    alignment = sr.Alignment(order, spec, maps=maps, continuous=continuous)
    canonical = sr.canonicalize(base, spec, continuous, tokens)
    new_base.load_state_dict(alignment.apply(canonical))
    applied = sr.carry(tuned, base, new_base, alignment, 1.0, example_inputs=tokens).apply(new_base)
    assert torch.allclose(applied(tokens), tuned(tokens), atol=1e-4)
    assert not torch.allclose(new_base(tokens), tuned(tokens), atol=1e-1)


def test_an_alignment_of_other_bases_is_refused_by_its_receipt() -> None:
    base, new_base, other = (mlp(seed) for seed in range(3))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    alignment = sr.weight_matching(new_base, base, sr.discover_symmetry(base, x))
    receipt = Receipt.of(new_base.state_dict(), base.state_dict())
    alignment = dataclasses.replace(alignment, receipt=receipt)
    sr.carry(tuned_from(base), base, new_base, alignment, example_inputs=x)
    with pytest.raises(ArchitectureError, match=r"reference of this alignment .* '0.weight'"):
        sr.carry(tuned_from(base), base, other, alignment, example_inputs=x)
    with pytest.raises(ArchitectureError, match=r"target of this alignment .* '0.weight'"):
        sr.carry(tuned_from(other), other, new_base, alignment, example_inputs=x)


def test_data_in_the_place_of_an_alignment_are_refused() -> None:
    base = mlp(0)
    with pytest.raises(ArchitectureError, match=r"an alignment .* but got list: pass batches as data="):
        sr.carry(tuned_from(base), base, mlp(1), [torch.ones(6, 4)])  # type: ignore[arg-type]
