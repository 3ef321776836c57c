"""Networks some of whose parameters hold a matrix for each of many experts or heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function, noise

EXPERTS, WIDTH, HIDDEN = 4, 8, 12


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def mixture(net: Function, x: Tensor, outputs: Tensor) -> Tensor:
    """All experts' outputs (experts, batch, width) weighted by a softmax, and a head."""
    return net.last((outputs * net.gate(x).softmax(-1).t()[..., None]).sum(0))


def by_einsum(net: Function, x: Tensor) -> Tensor:
    hidden = F.gelu(torch.einsum("bi,eih->ebh", net.first(x), net.up))
    return mixture(net, x, torch.einsum("ebh,eho->ebo", hidden, net.down))


def with_biases(net: Function, x: Tensor) -> Tensor:
    tokens = net.first(x).expand(EXPERTS, -1, -1)
    hidden = F.gelu(torch.baddbmm(net.up_bias[:, None], tokens, net.up))
    return mixture(net, x, torch.baddbmm(net.down_bias[:, None], hidden, net.down))


def experts(run: object, **more: nn.Parameter) -> Function:
    return Function(
        run,  # type: ignore[arg-type]
        first=nn.Linear(3, WIDTH),
        gate=nn.Linear(3, EXPERTS),
        up=weights(EXPERTS, WIDTH, HIDDEN),
        down=weights(EXPERTS, HIDDEN, WIDTH),
        last=nn.Linear(WIDTH, 2),
        **more,
    )


def heads(net: Function, x: Tensor) -> Tensor:
    tokens = net.first(x)
    queries, keys, values = (torch.einsum("bti,ihd->bthd", tokens, w) for w in (net.q, net.k, net.v))
    attention = torch.einsum("bthd,bshd->bhts", queries, keys).softmax(-1)
    return net.last(torch.einsum("bhts,bshd,hdo->bto", attention, values, net.out))


def by_groups(net: Function, x: Tensor) -> Tensor:
    """Rows sorted by the expert of each, which the sign of an input tells, and put back."""
    chosen = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 1).long()
    order = chosen.argsort(stable=True)
    ends = F.one_hot(chosen, EXPERTS).sum(0).cumsum(0).int()
    hidden = F.gelu(F.grouped_mm(net.first(x)[order], net.up, offs=ends))
    return net.last(F.grouped_mm(hidden, net.down, offs=ends)[order.argsort()])


class Doubled(torch.autograd.Function):
    """An operation of the old kind, which functional transforms refuse."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return 2 * gradient


CASES = [
    Case(
        "experts_by_einsum",
        lambda: experts(by_einsum),
        noise(5, 3),
        ((WIDTH, 1), (EXPERTS, 1), (WIDTH, 1), (HIDDEN, EXPERTS)),
    ),
    Case(
        "experts_with_biases",
        lambda: experts(with_biases, up_bias=weights(EXPERTS, HIDDEN), down_bias=weights(EXPERTS, WIDTH)),
        noise(5, 3),
        ((WIDTH, 1), (EXPERTS, 1), (WIDTH, 1), (HIDDEN, EXPERTS)),
    ),
    Case(
        "heads_by_einsum",
        lambda: Function(
            heads,
            first=nn.Linear(3, 6),
            q=weights(6, 4, 5),
            k=weights(6, 4, 5),
            v=weights(6, 4, 5),
            out=weights(4, 5, 6),
            last=nn.Linear(6, 2),
        ),
        noise(2, 7, 3),
        ((6, 1), (4, 1), (6, 1), (5, 4), (5, 4)),
    ),
    Case(
        "old_autograd_function",
        lambda: Function(lambda net, x: net.b(Doubled.apply(net.a(x))), a=nn.Linear(3, 5), b=nn.Linear(5, 2)),
        noise(6, 3),
        ((5, 1),),
    ),
]
