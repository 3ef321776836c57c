"""Small networks whose continuous symmetries are known by theory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, DIMENSIONS = 8, 2, 4


def perceptron(*activations: nn.Module, width: int = WIDTH) -> nn.Sequential:
    """Linear layers of one width with an activation after each but the last."""
    layers: list[nn.Module] = [nn.Linear(5, width)]
    for activation in activations[:-1]:
        layers += [activation, nn.Linear(width, width)]
    return nn.Sequential(*layers, activations[-1], nn.Linear(width, 3))


class Adapted(nn.Module):
    """A linear layer with an adapter of low rank beside it."""

    def __init__(self, rank: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.down, self.up = nn.Linear(5, rank, bias=False), nn.Linear(rank, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.first(x) + self.up(self.down(x))))


class Attention(nn.Module):
    """Attention with what language models vary: key heads, norms of queries and keys, rotary positions."""

    def __init__(
        self,
        keys: int = HEADS,
        normed: bool = False,
        rotary: bool = False,
        heads: int = HEADS,
        turning: int = DIMENSIONS,
    ) -> None:
        super().__init__()
        self.heads, self.keys, self.normed, self.rotary = heads, keys, normed, rotary
        self.turning = turning
        self.query = nn.Linear(WIDTH, heads * DIMENSIONS, bias=False)
        self.key = nn.Linear(WIDTH, keys * DIMENSIONS, bias=False)
        self.value = nn.Linear(WIDTH, keys * DIMENSIONS, bias=False)
        self.out = nn.Linear(heads * DIMENSIONS, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.query(x).unflatten(-1, (self.heads, DIMENSIONS)).transpose(1, 2)
        keys, values = (
            layer(x).unflatten(-1, (self.keys, DIMENSIONS)).transpose(1, 2)
            for layer in (self.key, self.value)
        )
        if self.normed:
            queries, keys = (F.rms_norm(each, (DIMENSIONS,)) for each in (queries, keys))
        if self.rotary:
            queries, keys = turned(queries, self.turning), turned(keys, self.turning)
        keys, values = (each.repeat_interleave(self.heads // self.keys, 1) for each in (keys, values))
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SharedPositions(nn.Module):
    """Heads whose queries meet one table of relative positions, as in bottleneck transformers."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.qk = heads, nn.Linear(5, 2 * heads * DIMENSIONS, bias=False)
        self.positions = nn.Parameter(torch.randn(5, DIMENSIONS))
        self.value = nn.Linear(5, heads)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys = self.qk(x).unflatten(-1, (2, self.heads, DIMENSIONS)).permute(2, 0, 3, 1, 4)
        weights = (queries @ keys.mT + queries @ self.positions.T).softmax(-1)
        return (weights @ self.value(x).mT[..., None]).flatten(2)


def turned(x: Tensor, turning: int) -> Tensor:
    """Rotary positions: of the turning dimensions the first half are real parts, the second imaginary ones."""
    half = turning // 2
    x, still = x[..., :turning], x[..., turning:]
    angles = torch.arange(x.shape[-2])[:, None] / 10.0 ** torch.arange(half)
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos, still], -1)


class Block(nn.Module):
    """Pre-norm attention and a gated layer, as Llama's."""

    def __init__(self, attention: nn.Module, norm: type[nn.Module]) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = attention, norm(WIDTH), norm(WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, 10, bias=False), nn.Linear(WIDTH, 10, bias=False)
        self.down = nn.Linear(10, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        inner = self.norm2(x)
        return x + self.down(F.silu(self.gate(inner)) * self.up(inner))


class PostNorm(nn.Module):
    """A block whose norms come after the additions."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = Attention(), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 10), nn.Linear(10, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Language(nn.Module):
    """Words through blocks to scores."""

    def __init__(self, *blocks: nn.Module, norm: type[nn.Module] = nn.RMSNorm) -> None:
        super().__init__()
        self.words, self.blocks = nn.Embedding(9, WIDTH), nn.Sequential(*blocks)
        self.norm, self.head = norm(WIDTH), nn.Linear(WIDTH, 9, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.words(words))))


class PlusOneNorm(nn.Module):
    """A norm whose gain is stored as its distance from one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:]) * (1 + self.weight)


class InvertedResidual(nn.Module):
    """Blocks of MobileNetV2: a stream without activation, with batch norm or as it is once that is folded."""

    def __init__(self, folded: bool) -> None:
        super().__init__()

        def layer(*sizes: int, groups: int = 1, kernel: int = 1) -> nn.Module:
            norm = nn.Identity() if folded else nn.BatchNorm2d(sizes[1])
            conv = nn.Conv2d(*sizes, kernel, padding=kernel // 2, groups=groups, bias=folded)
            return nn.Sequential(conv, norm)

        self.first, self.last = layer(3, 6), nn.Linear(6, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                layer(6, 10), nn.ReLU6(), layer(10, 10, groups=10, kernel=3), nn.ReLU6(), layer(10, 6)
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x.mean((2, 3)))


class Mixer(nn.Module):
    """A block of an MLP-Mixer without gains: it mixes tokens channel by channel, and channels token by token."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 4)
        self.tokens = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 9), nn.GELU(), nn.Linear(9, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.tokens(F.layer_norm(x, x.shape[-1:]).mT).mT
        x = x + self.channels(F.layer_norm(x, x.shape[-1:]))
        return self.last(x.mean(1))


class Packed(nn.Module):
    """Rotary attention whose queries, keys and values are rows of one matrix.

    They lie behind each other, all queries first, or, where ``side_by_side``, head by head.
    """

    def __init__(self, keys: int = HEADS, heads: int = HEADS, side_by_side: bool = False) -> None:
        super().__init__()
        self.heads, self.keys, self.side_by_side = heads, keys, side_by_side
        self.rows = nn.Linear(WIDTH, (heads + 2 * keys) * DIMENSIONS, bias=False)
        self.out = nn.Linear(heads * DIMENSIONS, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x)
        if self.side_by_side:
            queries, keys, values = rows.unflatten(-1, (self.heads, 3, DIMENSIONS)).unbind(-2)
        else:
            parts = rows.unflatten(-1, (-1, DIMENSIONS))
            queries, keys, values = parts.split((self.heads, self.keys, self.keys), -2)
        queries, keys = (self.placed(each.transpose(1, 2)) for each in (queries, keys))
        keys, values = (
            each.repeat_interleave(self.heads // self.keys, 1) for each in (keys, values.transpose(1, 2))
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def placed(self, x: Tensor) -> Tensor:
        """Turn what is at each position."""
        return turned(x, DIMENSIONS)


class HeadsOfTwoWidths(nn.Module):
    """Attention whose heads have queries and keys of 3 and 5 units, and values of 4 and 6, as rows of one matrix."""

    QUERIES, VALUES = (3, 5), (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(WIDTH, 2 * sum(self.QUERIES) + sum(self.VALUES))
        self.out = nn.Linear(sum(self.VALUES), WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.rows(x).split([*self.QUERIES, *self.QUERIES, *self.VALUES], -1)
        heads = zip(parts[:2], parts[2:4], parts[4:], strict=True)
        return self.out(torch.cat([F.scaled_dot_product_attention(q, k, v) for q, k, v in heads], -1))


class Experts(nn.Module):
    """One of several experts a token, so that a draw reaches some alone; those behind the used ones never."""

    def __init__(self, count: int, used: int) -> None:
        super().__init__()
        self.norm, self.router = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, used, bias=False)
        self.experts = nn.ModuleList(perceptron(nn.GELU(), width=6) for _ in range(count))
        for expert in self.experts:
            expert[0], expert[2] = nn.Linear(WIDTH, 6, bias=False), nn.Linear(6, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(x)
        weights, places = self.router(inner).softmax(-1).max(-1, keepdim=True)
        return x + sum(expert(inner) * weights * (places == k) for k, expert in enumerate(self.experts))
