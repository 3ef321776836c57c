"""One network has one spec, whatever the example inputs look like."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import PermutationSpec, discover_symmetry


class Stack(nn.Module):
    """Two recurrent layers, the second of which is registered first."""

    def __init__(self, cell: type[nn.RNNBase], bidirectional: bool) -> None:
        super().__init__()
        wide = 8 if bidirectional else 4
        self.head = nn.Linear(wide, 1)
        self.second = cell(wide, 4, batch_first=True, bidirectional=bidirectional)
        self.first = cell(3, 4, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.second(self.first(x)[0])[0])
        return found


class Loop(nn.Module):
    """The same cells called as often as there are steps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.GRUCell(3, 4), nn.GRUCell(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = second = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            first = self.a(step, first)
            second = self.b(first, second)
        found: torch.Tensor = self.head(second)
        return found


class Encoder(nn.Module):
    """Two layers of attention, with groups inside of groups."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.before, self.after = nn.Linear(3, 8), nn.Linear(8, 1)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.after(self.layers(self.before(x)))
        return found


NETWORKS = {
    "GRU": lambda: Stack(nn.GRU, False),
    "LSTM": lambda: Stack(nn.LSTM, False),
    "bidirectional LSTM": lambda: Stack(nn.LSTM, True),
    "bidirectional RNN": lambda: Stack(nn.RNN, True),
    "loop of cells": Loop,
    "attention": Encoder,
}


@cache
def spec_of(name: str) -> PermutationSpec:
    """The spec from two examples of three steps."""
    torch.manual_seed(0)
    return discover_symmetry(NETWORKS[name](), torch.rand(2, 3, 3))


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_size_and_length_change_no_spec(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    specs = [discover_symmetry(model, torch.rand(*shape, 3)) for shape in ((1, 2), (2, 17), (5, 9))]
    assert len(specs[0].groups) >= 2
    assert all(spec == spec_of(name) for spec in specs)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_stand_in_the_order_of_the_state_dict(name: str) -> None:
    model, spec = NETWORKS[name](), spec_of(name)
    place = {tensor: number for number, tensor in enumerate(model.state_dict())}
    tops = [group.name for group in spec.groups if group.parent is None]
    firsts = [min(place[slot.tensor] for slot in spec.slots_of(group)) for group in tops]
    assert firsts == sorted(firsts)
