"""Tied tensors with memory of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.untying import untie


class Language(nn.Module):
    """An embedding whose weight is that of the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.head(self.words(tokens).tanh())
        return output


def test_the_copy_computes_the_same_and_its_head_learns_alone() -> None:
    model, tokens = Language(), torch.randint(7, (2, 3))
    twin = untie(model)
    assert type(twin) is Language
    assert model.head.weight is model.words.weight
    assert torch.equal(twin(tokens), model(tokens))
    assert len(list(twin.parameters())) == 2
    with torch.no_grad():
        twin.head.weight.zero_()
    assert bool(twin.words.weight.any())


def test_names_are_those_that_get_a_tensor() -> None:
    assert len(list(untie(Language(), ["head.weight"]).parameters())) == 2
    with pytest.raises(ArchitectureError, match=r"got 'words.weight'; there are \['head.weight'\]"):
        untie(Language(), ["words.weight"])


def test_a_layer_that_is_used_twice_stays_one() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ArchitectureError, match="under two names but Sequential has none"):
        untie(nn.Sequential(layer, nn.Tanh(), layer))
