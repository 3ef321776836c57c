"""Recurrent layers, and cells in loops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.random_networks.blocks.dense import Shape, free
from tests.random_networks.plan import SEQUENCE, kind
from tests.zoo.case import Function

BOTH = (False, True)


def first_output(layer: nn.Module) -> nn.Module:
    return Function(lambda net, x: net.layer(x)[0], layer=layer)


@kind("recurrent", SEQUENCE, activation=("tanh", "relu"), both=BOTH, layers=(1, 2))
def rnn(shape: Shape, width: int, activation: str, both: bool, layers: int) -> nn.Module:
    made = nn.RNN(shape[2], 3, layers, nonlinearity=activation, bidirectional=both, batch_first=True)
    return first_output(made)


@kind("recurrent", SEQUENCE, projection=(0, 2), both=BOTH, layers=(1, 2), bias=(True, False))
def lstm(shape: Shape, width: int, projection: int, both: bool, layers: int, bias: bool) -> nn.Module:
    return first_output(
        nn.LSTM(shape[2], 3, layers, bias=bias, bidirectional=both, batch_first=True, proj_size=projection)
    )


@kind("recurrent", SEQUENCE, both=BOTH, layers=(1, 2))
def gru(shape: Shape, width: int, both: bool, layers: int) -> nn.Module:
    return first_output(nn.GRU(shape[2], 4, layers, bidirectional=both, batch_first=True))


@kind("recurrent", SEQUENCE, cell=("LSTMCell", "GRUCell", "RNNCell"), last=(False, True))
def cell_in_a_loop(shape: Shape, width: int, cell: str, last: bool) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in range(x.shape[1]):
            state = net.cell(x[:, step], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return outputs[-1] if last else torch.stack(outputs, 1)

    return Function(run, cell=getattr(nn, cell)(shape[2], 3))


@kind("recurrent", SEQUENCE, learned=(False, True))
def final_state(shape: Shape, width: int, learned: bool) -> nn.Module:
    """Hidden and cell state at the end, from a state that may be learned."""

    def run(net: Function, x: Tensor) -> Tensor:
        start = None
        if learned:
            start = tuple(s[:, None].expand(-1, len(x), -1).contiguous() for s in (net.h, net.c))
        _, (h, c) = net.layer(x, start)
        return torch.cat([h[-1], c[-1]], 1)

    return Function(run, layer=nn.LSTM(shape[2], 3, batch_first=True), h=free(1, 3), c=free(1, 3))


@kind("recurrent", SEQUENCE)
def minimal_gated_unit(shape: Shape, width: int) -> nn.Module:
    def run(net: Function, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        outputs = []
        for one in x.unbind(1):
            gate = net.gate(torch.cat([one, h], 1)).sigmoid()
            h = (1 - gate) * h + gate * net.new(torch.cat([one, gate * h], 1)).tanh()
            outputs.append(h)
        return torch.stack(outputs, 1)

    return Function(run, gate=nn.Linear(shape[2] + 4, 4), new=nn.Linear(shape[2] + 4, 4))


@kind("recurrent", SEQUENCE)
def echo_state(shape: Shape, width: int) -> nn.Module:
    """A recurrence written in place into a buffer of outputs."""

    def run(net: Function, x: Tensor) -> Tensor:
        out = x.new_zeros(*x.shape[:2], 3)
        h = x.new_zeros(len(x), 3)
        drive = net.drive(x)
        for step in range(x.shape[1]):
            h = torch.tanh(drive[:, step] + h @ net.loop)
            out[:, step] = h
        return out

    return Function(run, drive=nn.Linear(shape[2], 3), loop=free(3, 3))
