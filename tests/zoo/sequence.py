"""Networks over sequences: attention, recurrence, embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, noise


class Attending(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.first(tokens)
        return self.last(tokens + self.attention(tokens, tokens, tokens)[0])


class GroupedQueries(nn.Module):
    """Four query heads of three dimensions share two key and value heads; two may write theirs in reverse."""

    def __init__(self, order: tuple[int, ...] = tuple(range(12))) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))
        self.queries, self.last = nn.Linear(5, 12), nn.Linear(12, 3)
        self.keys, self.values = nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, _ = tokens.shape
        queries = self.queries(tokens).view(batch, length, 4, 3).transpose(1, 2)
        shared = [
            layer(tokens).view(batch, length, 2, 3).transpose(1, 2) for layer in (self.keys, self.values)
        ]
        keys, values = (heads.repeat_interleave(2, dim=1) for heads in shared)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return self.last(mixed.transpose(1, 2).reshape(batch, length, 12)[..., self.order])


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.RNNBase], outputs: int = 4, **options: object) -> None:
        super().__init__()
        self.layer = layer(5, 4, batch_first=True, **options)  # type: ignore[arg-type]
        self.last = nn.Linear(outputs, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.layer(tokens)[0])


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 12), nn.Embedding(6, 12)
        self.up, self.down, self.norm = nn.Linear(12, 20), nn.Linear(20, 12), nn.LayerNorm(12)
        self.head = nn.Linear(12, 11, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("positions", torch.arange(6))

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.words(words) + self.places(self.positions)
        return self.head(self.norm(hidden + self.down(torch.relu(self.up(hidden)))))


SEQUENCE = noise(2, 6, 5)
HEADS = ((16, 1), (4, 1), (4, 4), (4, 4))

CASES = [
    Case("multihead_attention", Attending, SEQUENCE, HEADS),
    Case("multihead_attention_without_bias", lambda: Attending(bias=False), SEQUENCE, HEADS),
    Case(
        "transformer_encoder_layer",
        lambda: nn.Sequential(
            nn.Linear(5, 16), nn.TransformerEncoderLayer(16, 4, 20, batch_first=True), nn.Linear(16, 3)
        ),
        SEQUENCE,
        (*HEADS, (20, 1)),
    ),
    Case("grouped_queries", GroupedQueries, SEQUENCE, ((2, 1), (2, 2), (3, 2), (3, 2))),
    Case(
        "grouped_queries_out_of_order",
        lambda: GroupedQueries((0, 1, 2, 3, 4, 5, 8, 7, 6, 9, 10, 11)),
        SEQUENCE,
        ((2, 1), (2, 2), (3, 2), (3, 2)),
    ),
    Case("rnn", lambda: Recurrent(nn.RNN), SEQUENCE, ((4, 1),)),
    Case("lstm", lambda: Recurrent(nn.LSTM), SEQUENCE, ((4, 1),)),
    Case("lstm_of_two_layers", lambda: Recurrent(nn.LSTM, num_layers=2), SEQUENCE, ((4, 1), (4, 1))),
    Case("lstm_both_ways", lambda: Recurrent(nn.LSTM, 8, bidirectional=True), SEQUENCE, ((4, 1), (4, 1))),
    Case("lstm_with_projection", lambda: Recurrent(nn.LSTM, 3, proj_size=3), SEQUENCE, ((4, 1), (3, 1))),
    Case("gru_of_two_layers", lambda: Recurrent(nn.GRU, num_layers=2), SEQUENCE, ((4, 1), (4, 1))),
    Case("tied_language_model", Language, lambda: torch.randint(11, (2, 6)), ((12, 1), (20, 1))),
]
