"""Language models with a mixture of experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixtureLM(nn.Module):
    """Characters before a place, and experts whose shares a gate decides: tokens (N, T) -> scores (N, vocabulary, T).

    Every expert is a hidden layer of its own; a softmax over gates shares them out for each place.

    Example:
        >>> MixtureLM(vocabulary=10, width=8, experts=3, inside=4)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 10, 5])

    Source: Jacobs, Jordan, Nowlan, Hinton, "Adaptive Mixtures of Local Experts" (1991).
    """

    def __init__(
        self,
        vocabulary: int,
        embedded: int = 16,
        width: int = 48,
        experts: int = 4,
        inside: int = 32,
        reach: int = 8,
    ) -> None:
        super().__init__()
        self.reach = reach
        self.words = nn.Embedding(vocabulary, embedded)
        self.local = nn.Conv1d(embedded, width, reach)
        self.gate = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, inside, width) / width**0.5)
        self.up_bias = nn.Parameter(torch.zeros(experts, inside))
        self.down = nn.Parameter(torch.randn(experts, width, inside) / inside**0.5)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the next character at every place."""
        words = F.pad(self.words(tokens).mT, (self.reach - 1, 0))
        stream = self.local(words).relu().mT
        shares = self.gate(stream).softmax(-1)
        inside = (torch.einsum("ntw,eiw->ntei", stream, self.up) + self.up_bias).relu()
        mixed = torch.einsum("ntei,ewi->ntew", inside, self.down)
        stream = stream + torch.einsum("ntew,nte->ntw", mixed, shares)
        scores: Tensor = self.head(stream)
        return scores.mT
