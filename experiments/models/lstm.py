"""Recurrent language models."""

from __future__ import annotations

from torch import Tensor, nn


class LSTM(nn.Module):
    """An embedding, layers of long short-term memory, and an output: tokens (N, T) -> scores (N, vocabulary, T).

    Example:
        >>> import torch
        >>> LSTM(vocabulary=10, embedded=8, width=16)(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 10, 5)
        True

    Source: Sepp Hochreiter and Jürgen Schmidhuber, "Long Short-Term Memory" (1997).
    """

    def __init__(self, vocabulary: int, embedded: int = 32, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, embedded)
        self.layers = nn.LSTM(embedded, width, depth, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.head(self.layers(self.words(tokens))[0])
        return output.mT
