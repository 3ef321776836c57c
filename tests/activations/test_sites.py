"""Units of layers of other libraries are read at their outputs, where a run shows what the layer computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.activations.sites import find_sites, has_transposed_weight


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as the transformers library has."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs)),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Turned(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Squashed(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight + self.bias).tanh()


class Picky(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("nothing will do")


class Attention(nn.Module):
    """Queries, keys and values in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.qkv, self.out = Conv1D(6, 3), Conv1D(18, 6), Conv1D(2, 6)

    def forward(self, x: Tensor) -> Any:
        q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in self.qkv(self.into(x)).chunk(3, -1))
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(-2))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Conv1D(4, 3), True),
        (Turned(4, 4), False),
        (Squashed(4, 3), False),
        (Picky(4, 3), False),
        (nn.Linear(4, 3), False),
        (nn.Sequential(Conv1D(4, 3)), False),
        (nn.LayerNorm(3), False),
    ],
)
def test_a_run_shows_which_layers_have_a_transposed_weight(layer: nn.Module, expected: bool) -> None:
    assert has_transposed_weight(layer) == expected


def test_joined_attention_is_read_and_matched() -> None:
    torch.manual_seed(0)
    reference, x = Attention(), torch.randn(8, 5, 3)
    spec = sr.discover_symmetry(reference, x)
    sites = find_sites(reference, reference.state_dict(), spec, x)
    assert {site.module for site in sites.values()} == {"into", "qkv"}
    assert set(sites) == {group.name for group in spec.groups}
    target = copy.deepcopy(reference)
    target.load_state_dict(sr.permute_state(reference.state_dict(), spec, sr.random_permutations(spec)))
    back = sr.activation_matching(reference, target, spec, data=[x]).apply(target)
    state = reference.state_dict()
    torch.testing.assert_close({name: back[name] for name in state}, dict(state))
