"""Two linear layers and what is done to the hidden units between them: constants, views, slices, orders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise, slots


def hidden(operation):
    """Linear, an operation on its five outputs, Linear."""
    return lambda: Function(
        lambda net, x: net.b(operation(net, net.a(x))), a=nn.Linear(3, 5), b=nn.Linear(5, 2)
    )


def with_buffer(values: list[float], operation, persistent: bool = False) -> Function:
    net = Function(
        lambda net, x: net.b(operation(net.a(x), net.constant)), a=nn.Linear(3, 5), b=nn.Linear(5, 2)
    )
    net.register_buffer("constant", torch.tensor(values), persistent)
    return net


def add_into_view(net: Function, x: Tensor) -> Tensor:
    h = net.a(x).clone()
    h[:, 2:5] += net.b(x)
    return net.c(torch.relu(h))


def scale_view_in_place(net: Function, x: Tensor) -> Tensor:
    h = net.a(x)
    part = h.view(-1, 2, 4)[:, 1]
    part.mul_(net.b(x))
    return net.c(h)


HIDDEN = slots("a.weight 0", "a.bias 0", "b.weight 1")

CASES = [
    Case(
        "scalar_constant", hidden(lambda net, h: torch.sin(2 * h + 1) / 3), noise(6, 3), ((5, 1),), (HIDDEN,)
    ),
    Case(
        "mask",
        lambda: with_buffer([1.0, 0.0, 1.0, 0.0, 1.0], lambda h, mask: h * mask),
        noise(6, 3),
        ((3, 1), (2, 1)),
    ),
    Case(
        "mask_in_the_state",
        lambda: with_buffer([1.0, 0.0, 1.0, 0.0, 1.0], lambda h, mask: h * mask, persistent=True),
        noise(6, 3),
        ((5, 1),),
        (HIDDEN | slots("constant 0"),),
    ),
    Case(
        "equal_constants", lambda: with_buffer([2.0] * 5, lambda h, c: h.tanh() + c), noise(6, 3), ((5, 1),)
    ),
    Case(
        "distinct_constants",
        lambda: with_buffer([0.0, 1.0, 2.0, 3.0, 4.0], lambda h, c: torch.relu(h + c)),
        noise(6, 3),
        (),
        (),
        "constant",
    ),
    Case(
        "glu",
        lambda: nn.Sequential(nn.Linear(3, 8), nn.GLU(), nn.Linear(4, 2)),
        noise(6, 3),
        ((4, 1),),
        (slots("0.weight 0 x 2", "0.bias 0 x 2", "2.weight 1"),),
    ),
    Case(
        "chunk",
        lambda: Function(
            lambda net, x: net.b((h := net.a(x).chunk(2, -1))[0] * h[1].tanh()),
            a=nn.Linear(3, 8),
            b=nn.Linear(4, 2),
        ),
        noise(6, 3),
        ((4, 1),),
        (slots("a.weight 0 x 2", "a.bias 0 x 2", "b.weight 1"),),
    ),
    Case(
        "heads",
        lambda: Function(
            lambda net, x: net.b(net.a(x).view(-1, 2, 3).softmax(-1).flatten(1)),
            a=nn.Linear(3, 6),
            b=nn.Linear(6, 2),
        ),
        noise(5, 3),
        ((2, 1), (3, 2)),
    ),
    Case(
        "added_into_a_view",
        lambda: Function(add_into_view, a=nn.Linear(3, 5), b=nn.Linear(3, 3), c=nn.Linear(5, 2)),
        noise(6, 3),
        ((2, 1), (3, 1)),
        (
            slots("a.weight 0", "a.bias 0", "c.weight 1"),
            slots("a.weight 0", "a.bias 0", "b.weight 0", "b.bias 0", "c.weight 1"),
        ),
    ),
    Case(
        "scaled_through_a_view",
        lambda: Function(scale_view_in_place, a=nn.Linear(3, 8), b=nn.Linear(3, 4), c=nn.Linear(8, 2)),
        noise(6, 3),
        None,
    ),
    Case(
        "reversed",
        hidden(lambda net, h: h.flip(1).tanh()),
        noise(6, 3),
        ((5, 1),),
    ),
    Case(
        "rolled_and_added",
        hidden(lambda net, h: h + h.roll(1, 1)),
        noise(6, 3),
        (),
        (),
        "told apart",
    ),
    Case("softmax_over_units", hidden(lambda net, h: h.softmax(1)), noise(6, 3), ((5, 1),), (HIDDEN,)),
    Case("normalised_units", hidden(lambda net, h: h / h.norm(dim=1, keepdim=True)), noise(6, 3), ((5, 1),)),
    Case("cumulative_sum", hidden(lambda net, h: h.cumsum(1)), noise(6, 3), (), (), "cumsum"),
    Case("sorted", hidden(lambda net, h: h.sort(1).values), noise(6, 3), ((5, 1),)),
    Case("highest", hidden(lambda net, h: h * h.argmax(1, keepdim=True)), noise(6, 3), (), (), "argmax"),
    Case("constant_index", hidden(lambda net, h: h[:, [4, 2, 0, 1, 3]]), noise(6, 3), None),
    Case("single_unit", hidden(lambda net, h: h * h[:, 2:3]), noise(6, 3), ((4, 1),)),
]
