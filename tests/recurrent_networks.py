"""Recurrent networks, and what a human negates with a unit: rows of the candidate and all columns that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry

INPUTS, WIDTH, STEPS = 3, 4, 6


class Layers(nn.Module):
    """A recurrent layer of PyTorch, from zeros or from trained states, and a head."""

    def __init__(
        self, cell: Callable[..., nn.Module], states: tuple[str, ...] = (), width: int = WIDTH, **options: Any
    ) -> None:
        super().__init__()
        self.r = cell(INPUTS, width, batch_first=True, **options)
        directions = 2 if options.get("bidirectional") else 1
        self.head = nn.Linear(directions * (options.get("proj_size") or width), 2)
        self.names = states
        for name in states:
            setattr(self, name, nn.Parameter(torch.randn(width)))

    def forward(self, x: Tensor) -> Tensor:
        states = [getattr(self, name).expand(1, len(x), -1).contiguous() for name in self.names]
        if not states:
            return self.head(self.r(x)[0])
        return self.head(self.r(x, tuple(states) if len(states) > 1 else states[0])[0])


class Loop(nn.Module):
    """A cell of PyTorch in a loop of Python."""

    def __init__(self, cell: Callable[..., nn.Module], width: int = WIDTH) -> None:
        super().__init__()
        self.cell, self.head = cell(INPUTS, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs, 1)


class ByHand(nn.Module):
    """A cell of bare matrices in a loop; subclasses say which gates it has and what a step does."""

    gates: tuple[str, ...] = ()

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        for gate in self.gates:
            setattr(self, f"w_{gate}", nn.Parameter(torch.randn(INPUTS, width) / 2))
            setattr(self, f"u_{gate}", nn.Parameter(torch.randn(width, width) / 2))
            setattr(self, f"b_{gate}", nn.Parameter(torch.randn(width) / 2))
        self.out = nn.Parameter(torch.randn(width, 2))

    def gate(self, name: str, x: Tensor, h: Tensor) -> Tensor:
        """What a gate or candidate takes in."""
        w, u, b = (getattr(self, f"{kind}_{name}") for kind in "wub")
        return x @ w + h @ u + b

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step, to the new hidden and cell state."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), len(self.out))
        outputs = []
        for step in x.unbind(1):
            h, c = self.step(step, h, c)
            outputs.append(h @ self.out)
        return torch.stack(outputs, 1)


class HandLSTM(ByHand):
    """Long short-term memory."""

    gates = ("i", "f", "g", "o")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o = (self.gate(name, x, h).sigmoid() for name in "ifo")
        c = f * c + i * self.gate("g", x, h).tanh()
        return o * c.tanh(), c


class Peepholes(HandLSTM):
    """Gates that see the cell state."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        for name in "ifo":
            setattr(self, f"p_{name}", nn.Parameter(torch.randn(width)))

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i = (self.gate("i", x, h) + self.p_i * c).sigmoid()
        f = (self.gate("f", x, h) + self.p_f * c).sigmoid()
        c = f * c + i * self.gate("g", x, h).tanh()
        return (self.gate("o", x, h) + self.p_o * c).sigmoid() * c.tanh(), c


class ResetBefore(ByHand):
    """A gated recurrent unit that resets the state before the candidate's matrix, as published."""

    gates = ("r", "z", "n")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        r, z = (self.gate(name, x, h).sigmoid() for name in "rz")
        return z * h + (1 - z) * self.gate("n", x, r * h).tanh(), c


class MinimalGated(ByHand):
    """One gate that forgets and resets."""

    gates = ("f", "n")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        f = self.gate("f", x, h).sigmoid()
        return (1 - f) * h + f * self.gate("n", x, f * h).tanh(), c


class Gates(nn.Module):
    """Long short-term memory of two linear layers, with all gates in each."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.x, self.h, self.head = (
            nn.Linear(INPUTS, 4 * width),
            nn.Linear(width, 4 * width),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.head.in_features)
        outputs = []
        for step in x.unbind(1):
            i, f, g, o = (self.x(step) + self.h(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


@dataclass(frozen=True)
class Recurrent:
    """A network, and per group the slots that a human negates, as ``"tensor axis first_position"``."""

    make: Callable[[int], nn.Module]
    negated: tuple[str, ...]

    @property
    def expected(self) -> frozenset[frozenset[tuple[str, int, int]]]:
        """The slots of each flip."""
        flips = [[slot.split() for slot in text.split(", ")] for text in self.negated]
        return frozenset(frozenset((name, int(axis), int(at)) for name, axis, at in one) for one in flips)


def _layer(suffix: str, gate: int, *readers: str, prefix: str = "r.") -> str:
    """The flip of one direction of one layer, whose candidate starts at this row, and what reads it."""
    rows = [f"{prefix}{name}{suffix} 0 {gate}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return ", ".join([*rows, f"{prefix}weight_hh{suffix} 1 0", *readers])


def _hand(candidate: str, gates: str, *more: str) -> str:
    rows = [f"w_{candidate} 1 0", f"u_{candidate} 1 0", f"b_{candidate} 0 0"]
    return ", ".join([*rows, *(f"u_{gate} 0 0" for gate in gates), *more, "out 0 0"])


_BOTH = ("r.weight_ih_l1 1 {0}", "r.weight_ih_l1_reverse 1 {0}")
_STACKED = (
    _layer("_l0", 8, *(reader.format(0) for reader in _BOTH)),
    _layer("_l0_reverse", 8, *(reader.format(4) for reader in _BOTH)),
    _layer("_l1", 8, "head.weight 1 0"),
    _layer("_l1_reverse", 8, "head.weight 1 4"),
)
_ROWS = "r.weight_ih_l0 0 8, r.weight_hh_l0 0 8, r.bias_ih_l0 0 8, r.bias_hh_l0 0 8"

RECURRENT: dict[str, Recurrent] = {
    "lstm": Recurrent(lambda w: Layers(nn.LSTM, width=w), (_layer("_l0", 8, "head.weight 1 0"),)),
    "gru": Recurrent(lambda w: Layers(nn.GRU, width=w), (_layer("_l0", 8, "head.weight 1 0"),)),
    "rnn": Recurrent(lambda w: Layers(nn.RNN, width=w), (_layer("_l0", 0, "head.weight 1 0"),)),
    "bidirectional": Recurrent(
        lambda w: Layers(nn.LSTM, width=w, bidirectional=True),
        (_layer("_l0", 8, "head.weight 1 0"), _layer("_l0_reverse", 8, "head.weight 1 4")),
    ),
    "stacked_gru": Recurrent(lambda w: Layers(nn.GRU, width=w, num_layers=2, bidirectional=True), _STACKED),
    "projected": Recurrent(
        lambda w: Layers(nn.LSTM, width=w, proj_size=w - 1),
        (f"{_ROWS}, r.weight_hr_l0 1 0", "r.weight_hr_l0 0 0, r.weight_hh_l0 1 0, head.weight 1 0"),
    ),
    "trained_states": Recurrent(
        lambda w: Layers(nn.LSTM, ("h0", "c0"), width=w),
        (_layer("_l0", 8, "h0 0 0", "c0 0 0", "head.weight 1 0"),),
    ),
    "trained_state": Recurrent(
        lambda w: Layers(nn.GRU, ("h0",), width=w), (_layer("_l0", 8, "h0 0 0", "head.weight 1 0"),)
    ),
    "lstm_cell": Recurrent(
        lambda w: Loop(nn.LSTMCell, w), (_layer("", 8, "head.weight 1 0", prefix="cell."),)
    ),
    "gru_cell": Recurrent(lambda w: Loop(nn.GRUCell, w), (_layer("", 8, "head.weight 1 0", prefix="cell."),)),
    "rnn_cell": Recurrent(lambda w: Loop(nn.RNNCell, w), (_layer("", 0, "head.weight 1 0", prefix="cell."),)),
    "lstm_by_hand": Recurrent(HandLSTM, (_hand("g", "ifgo"),)),
    "peepholes": Recurrent(Peepholes, (_hand("g", "ifgo", "p_i 0 0", "p_f 0 0", "p_o 0 0"),)),
    "reset_before": Recurrent(ResetBefore, (_hand("n", "rzn"),)),
    "minimal_gated": Recurrent(MinimalGated, (_hand("n", "fn"),)),
    "linear_layers": Recurrent(
        Gates, ("x.weight 0 8, x.bias 0 8, h.weight 0 8, h.bias 0 8, h.weight 1 0, head.weight 1 0",)
    ),
}


def recurrent(name: str, width: int = WIDTH, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network of the table with random weights, and inputs of it; expected slots are those of width 4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RECURRENT[name].make(width).eval(), torch.randn(16, STEPS, INPUTS)


@cache
def symmetries_of(name: str, width: int = WIDTH) -> tuple[PermutationSpec, RescalingSpec]:
    """The symmetries of a network of the table, discovered once: they are the same whatever the weights are."""
    net, x = recurrent(name, width, 3)
    spec = discover_symmetry(net, x[:4])
    return spec, discover_rescaling(net, spec, x[:4])
