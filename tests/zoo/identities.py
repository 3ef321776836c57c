"""Networks that use an identity matrix, which is the same in every order of its rows and columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise

WIDTH = 6


def weight_decomposed(net: Function, x: Tensor) -> Tensor:
    """A low-rank update that is read off by sending the identity through it, for the norm of each row's weights."""
    x = net.first(x).relu()
    update = net.up(net.down(torch.eye(WIDTH, dtype=x.dtype))).T
    scale = net.magnitude / (net.base.weight + update).norm(dim=1)
    return net.last((x + scale * net.base(x) + scale * net.up(net.down(x))).relu())


def without_themselves(net: Function, x: Tensor) -> Tensor:
    """Learned queries that attend to each other and not to themselves."""
    queries = net.queries + net.first(x)[:, None]
    scores = net.q(queries) @ net.k(queries).mT
    scores = scores.masked_fill(torch.eye(queries.shape[1], dtype=torch.bool), -torch.inf)
    return net.last((scores.softmax(-1) @ queries).relu().flatten(1))


def shrunk_covariance(net: Function, x: Tensor) -> Tensor:
    x = net.first(x).tanh()
    covariance = x.T @ x / len(x)
    return net.last(x @ (0.5 * covariance + 0.5 * torch.eye(WIDTH, dtype=x.dtype)).square())


def pairs_of_units(net: Function, x: Tensor) -> Tensor:
    """Products of all pairs of different units, of which each has a weight."""
    x = net.first(x).tanh()
    pairs = x[:, :, None] * x[:, None] * (1 - torch.eye(WIDTH, dtype=x.dtype))
    return net.last((pairs * net.couplings).sum(2))


def picked_by_rows(net: Function, x: Tensor) -> Tensor:
    """Rows of an identity that data picks: places, each with its own meaning."""
    x = net.first(x).tanh()
    return net.last(x * torch.eye(WIDTH, dtype=x.dtype)[x.argmax(1)])


def shifted(net: Function, x: Tensor) -> Tensor:
    """An identity with its rows turned is none: it moves every unit on to the next."""
    x = net.first(x).tanh()
    return net.last(x + x @ torch.eye(WIDTH, dtype=x.dtype).roll(1, 0))


def net_of(run: object, **layers: nn.Module | nn.Parameter) -> Function:
    return Function(run, first=nn.Linear(3, WIDTH), last=nn.Linear(WIDTH, 2), **layers)  # type: ignore[arg-type]


CASES = [
    Case(
        "weight_decomposed_update",
        lambda: net_of(
            weight_decomposed,
            base=nn.Linear(WIDTH, WIDTH, bias=False),
            down=nn.Linear(WIDTH, 2, bias=False),
            up=nn.Linear(2, WIDTH, bias=False),
            magnitude=nn.Parameter(torch.ones(WIDTH)),
        ),
        noise(4, 3),
        ((WIDTH, 1), (2, 1)),
    ),
    Case(
        "queries_that_do_not_see_themselves",
        lambda: Function(
            without_themselves,
            first=nn.Linear(3, WIDTH),
            queries=nn.Parameter(torch.ones(4, WIDTH)),
            q=nn.Linear(WIDTH, 5),
            k=nn.Linear(WIDTH, 5),
            last=nn.Linear(4 * WIDTH, 2),
        ),
        noise(4, 3),
        ((4, 1), (5, 1), (WIDTH, 1)),
    ),
    Case("shrunk_covariance", lambda: net_of(shrunk_covariance), noise(4, 3), ((WIDTH, 1),)),
    Case(
        "products_of_different_units",
        lambda: net_of(pairs_of_units, couplings=nn.Parameter(torch.ones(WIDTH, WIDTH))),
        noise(4, 3),
        ((WIDTH, 1),),
    ),
    Case("rows_of_an_identity_by_data", lambda: net_of(picked_by_rows), noise(4, 3), ()),
    Case("turned_identity", lambda: net_of(shifted), noise(4, 3), ()),
]
