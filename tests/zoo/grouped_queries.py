"""Attention in which several heads of queries share the keys and values of one, with norms that all heads share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, noise


class GroupedQueries(nn.Module):
    """Grouped queries; a root mean square norm on queries and keys; part of each head's units rotated by position.

    Two key heads, three query heads in each. The units of a head that are rotated have their places.
    """

    def __init__(self, width: int, rotated: int = 0, norm: bool = True) -> None:
        super().__init__()
        self.width, self.rotated = width, rotated
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6 * width, 2)
        self.q = nn.Linear(6, 6 * width, bias=False)
        self.k, self.v = (nn.Linear(6, 2 * width, bias=False) for _ in range(2))
        self.q_scale, self.k_scale = ((nn.Parameter(torch.ones(width)) if norm else None) for _ in range(2))

    def placed(self, x: Tensor, scale: Tensor | None) -> Tensor:
        heads = x.unflatten(-1, (-1, self.width)).transpose(1, 2)
        if scale is not None:
            heads = heads * torch.rsqrt(heads.square().mean(-1, keepdim=True) + 1e-6) * scale
        turned, rest = heads[..., : self.rotated], heads[..., self.rotated :]
        speed = 10.0 ** -torch.arange(self.rotated // 2, dtype=x.dtype)
        angle = (torch.arange(x.shape[1], dtype=x.dtype)[:, None] * speed).repeat(1, 2)
        one, two = turned.chunk(2, -1)
        return torch.cat([turned * angle.cos() + torch.cat([-two, one], -1) * angle.sin(), rest], -1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        queries, keys = self.placed(self.q(x), self.q_scale), self.placed(self.k(x), self.k_scale)
        values = self.v(x).unflatten(-1, (2, self.width)).transpose(1, 2)
        keys, values = (each.repeat_interleave(3, 1) for each in (keys, values))
        attended = (queries @ keys.mT).softmax(-1) @ values
        return self.last(attended.transpose(1, 2).flatten(2))


# Key heads, the query heads in each, units of values, the stream.
HEADS = ((2, 1), (3, 2), (6, 1))

CASES = [
    Case("grouped_queries", lambda: GroupedQueries(4, norm=False), noise(2, 5, 3), (*HEADS, (4, 2), (4, 2))),
    Case("grouped_queries_normed", lambda: GroupedQueries(4), noise(2, 5, 3), (*HEADS, (4, 2), (4, 1))),
    Case("grouped_queries_rotated", lambda: GroupedQueries(4, 4), noise(2, 5, 3), (*HEADS, (4, 2))),
    Case(
        "grouped_queries_rotated_in_part",
        lambda: GroupedQueries(7, 4),
        noise(2, 5, 3),
        (*HEADS, (7, 2), (3, 1)),
    ),
]
