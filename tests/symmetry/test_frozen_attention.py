"""Projections of attention that stay are told, with what holds them; others are not."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry
from sinkhorn_rebasin.errors import CoverageWarning, RebasinWarning
from tests.symmetry.attention_networks import LanguageModel, tokens

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


class ByHand(nn.Module):
    """Attention in single steps; queries may pass something in order."""

    def __init__(self, sort: bool = False, mask: bool = True) -> None:
        super().__init__()
        self.into, self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(4))
        self.out, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.sort, self.mask = sort, mask

    def forward(self, x: Tensor) -> Any:
        x = self.into(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        q = q.cumsum(-1) if self.sort else q
        scores = q @ k.mT / 6**0.5
        if self.mask:
            scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        x = x + self.out(scores.softmax(-1) @ v)
        return self.head(x)


class Gated(nn.Module):
    """Shares of experts and a sorted gate: no attention."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.gate, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.into(x)
        return self.head(x * self.gate(x).softmax(-1).cumsum(-1))


def told(model: nn.Module, inputs: Tensor, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        discover_symmetry(model, inputs, **options)
    assert all(issubclass(warning.category, RebasinWarning) for warning in caught)
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught if "Expected attention" in str(warning.message)]


def test_the_cache_that_counts_is_named() -> None:
    model = LanguageModel(lambda logits, kept, _: (logits, kept.layers))
    (message,) = told(model, tokens())
    assert "'blocks.0.attention.q.weight' axis 0, 'blocks.0.attention.k.weight' axis 0" in message
    assert re.search(
        r"and 3 more: output of the network \(aten\.\w+ at \S+attention_networks\.py:\d+\)", message
    )
    assert "pass outputs=" in message
    assert told(model, tokens(), outputs=lambda found: found[0]) == []


@pytest.mark.parametrize("mask", [True, False])
def test_single_steps_are_attention_too(mask: bool) -> None:
    assert told(ByHand(mask=mask), X) == []
    (message,) = told(ByHand(sort=True, mask=mask), X)
    assert re.search(r"'q\.weight' axis 0.*: aten\.cumsum .* \(at \S+\.py:\d+\)\.$", message)
    assert "'v.weight'" not in message
    assert "outputs=" not in message


def test_a_softmax_alone_is_no_attention() -> None:
    assert told(Gated(), X) == []


def test_layers_of_pytorch_are_followed() -> None:
    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.attention = nn.Linear(6, 6), nn.MultiheadAttention(6, 2, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.into(x)
            return self.head(x + self.attention(x, x, x.cumsum(-1))[0])

    (message,) = told(Layered(), X)
    assert "'attention.in_proj_weight' axis 1" in message
    with pytest.warns(CoverageWarning, match="attention of Layered"):
        discover_symmetry(Layered(), X)
