"""Networks that remember in their first run what they made of their weights."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.remembered import remembered_sources
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.symmetry.witness import difference


class Remembering(nn.Module):
    """Hidden units times a table, which is made of a parameter and kept somewhere."""

    def __init__(self, table: Callable[[Remembering, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.rand(8) + 0.5, requires_grad=False)
        self.register_buffer("cached", None, persistent=False)
        self.register_buffer("room", torch.zeros(8), persistent=False)
        self.filled = False
        self.table, self.plain, self.rows, self.by_size = table, None, [], {}
        self.box = SimpleNamespace(row=None)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu() * self.table(self, x))


def in_a_buffer(net: Remembering, x: Tensor) -> Tensor:
    if net.cached is None:
        net.cached = net.scale * 2
    return net.cached


def in_an_attribute(net: Remembering, x: Tensor) -> Tensor:
    net.plain = net.scale * 2 if net.plain is None else net.plain
    return net.plain


def in_a_list(net: Remembering, x: Tensor) -> Tensor:
    if not net.rows:
        net.rows.append(net.scale.exp())
    return net.rows[0]


def in_a_dict(net: Remembering, x: Tensor) -> Tensor:
    return net.by_size.setdefault(8, net.scale.exp())


def in_an_object(net: Remembering, x: Tensor) -> Tensor:
    net.box.row = net.scale * 2 if net.box.row is None else net.box.row
    return net.box.row


def written_in_place(net: Remembering, x: Tensor) -> Tensor:
    if net.plain is None:
        net.plain = torch.zeros(8).to(x)
        net.plain[:4] = net.scale[:4]
        net.plain[4:].copy_(net.scale[4:])
    return net.plain


def into_its_own_buffer(net: Remembering, x: Tensor) -> Tensor:
    if not net.filled:
        net.room[:4].copy_(net.scale[:4])
        net.room[4:] = net.scale[4:]
        net.filled = True
    return net.room


def for_nobody(net: Remembering, x: Tensor) -> Tensor:
    net.plain, net.last = net.scale * 2, x
    return net.scale


MEMORIES = [
    in_a_buffer,
    in_an_attribute,
    in_a_list,
    in_a_dict,
    in_an_object,
    written_in_place,
    into_its_own_buffer,
]


@pytest.mark.parametrize("table", MEMORIES)
def test_what_is_remembered_of_weights_holds_them_fast(table: Callable[..., Tensor]) -> None:
    net, inputs = Remembering(table), torch.randn(5, 3).double()
    assert remembered_sources(net, inputs) - {"room"} == {"scale"}
    spec = discover_symmetry(net, inputs)
    assert not any(slot.tensor == "scale" for slot in spec.slots)
    net(inputs)
    moved = permute_state(net.state_dict(), spec, random_permutations(spec))
    # The copy that is loaded remembers what the network has made of its own weights.
    assert difference(net, moved, inputs) < 1e-12


def test_what_no_run_reads_again_holds_nothing() -> None:
    net, inputs = Remembering(for_nobody), torch.randn(5, 3).double()
    spec = discover_symmetry(net, inputs)
    assert [group.size for group in spec.groups] == [8]
    net(inputs)
    assert difference(net, permute_state(net.state_dict(), spec, random_permutations(spec)), inputs) < 1e-12


def test_the_reason_is_told_and_the_network_left_alone() -> None:
    net, inputs = Remembering(in_an_attribute), torch.randn(5, 3).double()
    reasons = {item.reason for item in discover_symmetry(net, inputs).frozen if item.tensor == "scale"}
    assert reasons == {"the network remembers what it made of it in its first run"}
    assert net.plain is None
    assert not net._forward_hooks


class OfPacked(nn.Module):
    """Takes a packed sequence, which is a named tuple and still one argument."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 4), nn.Parameter(torch.rand(4), requires_grad=False)
        self.table: Tensor | None = None

    def forward(self, rows: nn.utils.rnn.PackedSequence) -> Tensor:
        self.table = self.scale * 2 if self.table is None else self.table
        return self.layer(rows.data) * self.table


def test_a_packed_sequence_is_one_argument() -> None:
    rows = nn.utils.rnn.pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    assert remembered_sources(OfPacked(), rows) == {"scale"}
