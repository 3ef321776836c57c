"""State-space scans: diagonal, by running sums, selective, and linear attention in recurrent form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import SEQUENCE, kind
from tests.zoo.case import Function


@kind("scan", SEQUENCE, back=(False, True))
def diagonal_scan(shape: Shape, width: int, back: bool) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        u, decay = net.a(x), net.decay.sigmoid()
        h, outputs = torch.zeros_like(u[:, 0]), []
        for step in reversed(range(u.shape[1])) if back else range(u.shape[1]):
            h = decay * h + u[:, step]
            outputs.append(h)
        return net.b(torch.stack(outputs, 1)) + net.skip * x

    return Function(
        run,
        a=nn.Linear(shape[2], width),
        decay=free(width),
        b=nn.Linear(width, shape[2]),
        skip=free(shape[2]),
    )


@kind("scan", SEQUENCE)
def running_sum(shape: Shape, width: int) -> nn.Module:
    """The closed form of a decaying sum, by cumsum."""

    def run(net: Function, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
        decay = torch.exp(-net.rate.sigmoid() * steps)
        return torch.cumsum(net.a(x) / decay, 1) * decay

    return Function(run, a=nn.Linear(shape[2], width), rate=free(width))


@kind("scan", SEQUENCE, conv=(True, False))
def selective_scan(shape: Shape, width: int, conv: bool) -> nn.Module:
    """Mamba: a causal depthwise convolution, steps and projections from the data, a gate."""
    states, rank, length = 3, 2, shape[1]

    def run(net: Function, x: Tensor) -> Tensor:
        u, gate = net.into(x).chunk(2, -1)
        if conv:
            u = F.silu(net.conv(u.transpose(1, 2))[..., :length].transpose(1, 2))
        step, b, c = net.project(u).split([rank, states, states], -1)
        step = F.softplus(net.step(step))
        decay = torch.exp(step[..., None] * -torch.exp(0.3 * net.log_a))
        drive = (step * u)[..., None] * b[:, :, None]
        h, outputs = torch.zeros_like(drive[:, 0]), []
        for t in range(length):
            h = decay[:, t] * h + drive[:, t]
            outputs.append((h * c[:, t, None]).sum(-1))
        return net.out((torch.stack(outputs, 1) + net.skip * u) * F.silu(gate))

    return Function(
        run,
        into=nn.Linear(shape[2], 2 * width, bias=False),
        conv=nn.Conv1d(width, width, 3, padding=2, groups=width),
        project=nn.Linear(width, rank + 2 * states, bias=False),
        step=nn.Linear(rank, width),
        log_a=free(width, states),
        skip=free(width),
        out=nn.Linear(width, shape[2], bias=False),
    )


@kind("scan einsum", SEQUENCE, heads=(1, 2))
def linear_attention(shape: Shape, width: int, heads: int) -> nn.Module:
    """Running sums of outer products of keys and values."""

    def run(net: Function, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (heads, 3)) for part in net.a(x).chunk(3, -1))
        memory = torch.einsum("bthi,bthj->bthij", F.elu(k) + 1, v).cumsum(1)
        return net.b(torch.einsum("bthi,bthij->bthj", F.elu(q) + 1, memory).flatten(2))

    return Function(run, a=nn.Linear(shape[2], 9 * heads), b=nn.Linear(3 * heads, width))


@kind("scan", SEQUENCE)
def token_shift(shape: Shape, width: int) -> nn.Module:
    """RWKV's channel mixing: each token is mixed with the one before it."""

    def run(net: Function, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        k = net.key(x * net.mix_k + before * (1 - net.mix_k))
        r = net.gate(torch.lerp(before, x, net.mix_r))
        return r.sigmoid() * net.value(k.relu().square())

    c = shape[2]
    return Function(
        run,
        mix_k=free(c),
        mix_r=free(c),
        key=nn.Linear(c, width, bias=False),
        gate=nn.Linear(c, c),
        value=nn.Linear(width, c),
    )


@kind("scan einsum", SEQUENCE)
def convolution_kernel_from_states(shape: Shape, width: int) -> nn.Module:
    """A linear state-space model as a long convolution, the kernel made from powers of the decay."""

    def run(net: Function, x: Tensor) -> Tensor:
        length = x.shape[1]
        steps = torch.arange(length, dtype=x.dtype)
        powers = net.decay.sigmoid()[..., None] ** steps
        kernel = torch.einsum("cn,cn,cnt->ct", net.b, net.c, powers)
        u = F.pad(net.a(x).transpose(1, 2), (length - 1, 0))
        return F.conv1d(u, kernel.flip(1)[:, None], groups=width).transpose(1, 2)

    return Function(
        run, a=nn.Linear(shape[2], width), decay=free(width, 3), b=free(width, 3), c=free(width, 3)
    )
