"""Transformers: one block, read as a vision transformer and as a language model.

Source: Ashish Vaswani and others, "Attention Is All You Need" (2017); Alexey Dosovitskiy and others, "An Image is
Worth 16x16 Words" (2021); Alec Radford and others, "Language Models are Unsupervised Multitask Learners" (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention of several heads, queries, keys and values from one linear layer: (N, T, width) -> the same."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width that {heads} heads divide but got {width}.")
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        split = self.qkv(tokens).view(count, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        output: Tensor = self.out(mixed.transpose(1, 2).reshape(count, length, width))
        return output


class TransformerBlock(nn.Module):
    """Attention, then a hidden layer with GELU, each after a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm2, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        output: Tensor = tokens + self.down(F.gelu(self.up(self.norm2(tokens))))
        return output


class ViT(nn.Module):
    """A vision transformer that averages its tokens: images (N, channels, size, size) -> (N, classes).

    Example:
        >>> ViT(size=32, patch=8, width=16, depth=1, heads=2)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        True
    """

    def __init__(
        self,
        size: int = 32,
        patch: int = 8,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        hidden: int | None = None,
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"Expected a size that patches of {patch} pixels divide but got {size}.")
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        hidden = 4 * width if hidden is None else hidden
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT + self.positions
        output: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return output


class GPT(nn.Module):
    """A language model whose last layer is its embedding: tokens (N, T) -> scores (N, vocabulary, T).

    Position t scores the token that comes next; the vocabulary is the second axis, as ``F.cross_entropy`` takes it.

    Example:
        >>> tokens = torch.tensor([[3, 1, 4], [3, 1, 5]])
        >>> scores = GPT(vocabulary=10, context=8, width=16, depth=1, heads=2)(tokens)
        >>> scores.shape == (2, 10, 3) and torch.equal(scores[0, :, :2], scores[1, :, :2])    # it looks back only
        True
    """

    def __init__(
        self,
        vocabulary: int,
        context: int = 64,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        hidden = 4 * width if hidden is None else hidden
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, hidden, True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        for embedding in (self.words, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        length, context = tokens.shape[1], self.places.num_embeddings
        if length > context:
            raise ValueError(f"Expected at most {context} tokens but got {length}.")
        embedded = self.words(tokens) + self.places.weight[:length]
        return F.linear(self.norm(self.blocks(embedded)), self.words.weight).mT
