"""Attention that adds what queries say of positions relative to their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise

HEADS, WIDTH = 4, 8
SIZES = ((6, 1), (HEADS, 1), (WIDTH, HEADS))


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)


def attended(net: Function, x: Tensor, extra: Callable[[Tensor], Tensor]) -> Tensor:
    """Attention with something of the queries added to its scores."""
    queries, keys, values = (heads(layer(x)) for layer in (net.q, net.k, net.v))
    scores = queries @ keys.mT + extra(queries)
    return net.last((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))


def distances(length: int, most: int) -> Tensor:
    places = torch.arange(length)
    return (places[:, None] - places).clamp(-most, most) + most


def by_table(net: Function, x: Tensor) -> Tensor:
    """A row of a table for each distance (Shaw et al., 2018)."""
    rows = net.table(distances(x.shape[1], 5))
    x = net.first(x).relu()
    return attended(net, x, lambda queries: torch.einsum("bhid,ijd->bhij", queries, rows))


def by_row_of_matrices(net: Function, x: Tensor) -> Tensor:
    """The same as a product of queries, position by position, with a matrix (units, positions)."""
    rows = net.table.weight.index_select(0, distances(x.shape[1], 5).flatten()).view(*[x.shape[1]] * 2, WIDTH)
    x = net.first(x).relu()

    def extra(queries: Tensor) -> Tensor:
        by_place = queries.permute(2, 0, 1, 3).flatten(1, 2) @ rows.mT
        return by_place.view(x.shape[1], len(x), HEADS, -1).permute(1, 2, 0, 3)

    return attended(net, x, extra)


def by_table_of_heads(net: Function, x: Tensor) -> Tensor:
    """A table for each head."""
    rows = net.table[:, distances(x.shape[1], 5)]
    x = net.first(x).relu()
    return attended(net, x, lambda queries: torch.einsum("bhid,hijd->bhij", queries, rows))


def by_pairs_of_places(net: Function, x: Tensor) -> Tensor:
    """A row for each pair of places, of which an input needs a corner."""
    rows = net.table[: x.shape[1], : x.shape[1]]
    x = net.first(x).relu()
    return attended(net, x, lambda queries: torch.einsum("bhid,ijd->bhij", queries, rows))


def with_biases(net: Function, x: Tensor) -> Tensor:
    """Biases of the queries, (heads, units) or stored (units, heads) and viewed (Dai et al., 2019)."""
    places = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.3, 0.1], dtype=x.dtype)
    x = net.first(x).relu()
    queries, keys, values = (layer(x).unflatten(-1, (HEADS, WIDTH)) for layer in (net.q, net.k, net.v))
    content = torch.einsum("bihd,bjhd->bhij", queries + net.u.view(HEADS, WIDTH), keys)
    distant = net.places(torch.cat([places.sin(), places.cos()], -1)).unflatten(-1, (HEADS, WIDTH))
    position = torch.einsum("bihd,jhd->bhij", queries + net.w.view(HEADS, WIDTH), distant)
    mixed = torch.einsum("bhij,bjhd->bihd", (content + position).softmax(-1), values)
    return net.last(mixed.flatten(2))


def attention(run: object, **more: nn.Module | nn.Parameter) -> Function:
    layers = {name: nn.Linear(6, HEADS * WIDTH, bias=False) for name in "qkv"}
    return Function(
        run,  # type: ignore[arg-type]
        first=nn.Linear(3, 6),
        last=nn.Linear(HEADS * WIDTH, 2),
        **layers,
        **more,
    )


def biased(*shape: int) -> Function:
    u, w = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    return attention(with_biases, u=u, w=w, places=nn.Linear(6, HEADS * WIDTH, bias=False))


CASES = [
    # Short inputs read part of the table: the rest of the rows keep their places, and their columns move along.
    *(
        Case(
            f"relative_table_{name}_{length}",
            lambda run=run: attention(run, table=nn.Embedding(11, WIDTH)),
            noise(2, length, 3),
            (*SIZES, (WIDTH, 1)),
        )
        for name, run in (("by_einsum", by_table), ("by_matrices", by_row_of_matrices))
        for length in (4, 9)
    ),
    Case(
        "relative_tables_of_heads",
        lambda: attention(by_table_of_heads, table=nn.Parameter(torch.ones(HEADS, 11, WIDTH))),
        noise(2, 4, 3),
        (*SIZES, (WIDTH, HEADS)),
    ),
    Case(
        "table_of_pairs_of_places",
        lambda: attention(by_pairs_of_places, table=nn.Parameter(torch.ones(7, 7, WIDTH))),
        noise(2, 4, 3),
        (*SIZES, (WIDTH, 1)),
    ),
    Case("query_biases", lambda: biased(HEADS, WIDTH), noise(2, 5, 3), (*SIZES, (WIDTH, HEADS))),
    Case("query_biases_viewed", lambda: biased(WIDTH, HEADS), noise(2, 5, 3), (*SIZES, (WIDTH, HEADS))),
]
