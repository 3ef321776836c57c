"""The order in which layers are matched, and by what: an embedding first, then what reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.matching import Alignment, greedy_cosine, ot_fusion
from tests.planted import planted_network


class Words(nn.Module):
    """An embedding, with a norm behind it when asked for, and two layers."""

    def __init__(self, norm: bool, bias: bool) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(50, 32), nn.LayerNorm(32) if norm else nn.Identity()
        self.hidden, self.head = nn.Linear(32, 64, bias=bias), nn.Linear(64, 10)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.hidden(self.norm(self.embed(words))).relu())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("method", [greedy_cosine, ot_fusion])
def test_layers_behind_an_embedding_are_recovered_from_noisy_weights(
    method: Callable[..., Alignment], bias: bool, norm: bool
) -> None:
    torch.manual_seed(0)
    problem = planted_network(Words(norm, bias), torch.randint(50, (8,)))
    noisy = {
        name: tensor + 0.1 * (tensor.std() if tensor.std() > 0 else 1) * torch.randn_like(tensor)
        for name, tensor in problem.target.items()
    }
    found = method(problem.reference, noisy, problem.spec).permutations
    assert set(found) == set(problem.answer)
    assert all(torch.equal(found[name], problem.answer[name]) for name in found)
