"""Modules that are copied at once are what copy.deepcopy makes of them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin.networks.copying import copied
from sinkhorn_rebasin.networks.module_shells import _is_plain, fill_in


class Tangled(nn.Module):
    """Attributes of every kind, some of them shared."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Conv2d(1, 1, (3, 3))
        self.again = [self.first, (self.second, 1)]
        self.empty: dict[str, Any] = {}
        self.same = self.empty
        self.plain, self.sizes = [1, [2]], torch.Size([1])
        self.loop: dict[str, Any] = {"self": self}
        self.first.register_forward_hook(lambda *_: None)
        self.register_buffer("seen", torch.zeros(1))


class Counted(nn.Module):
    """Says itself how it is copied."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        Counted.copies += 1
        return Counted()


def quick(module: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    fill_in(module, memo)
    return copy.deepcopy(module, memo)


def test_a_copy_has_everything_and_shares_nothing() -> None:
    net = Tangled()
    twin = quick(net)
    assert isinstance(twin, Tangled)
    assert vars(twin).keys() == vars(net).keys()
    assert twin.again[0] is twin.first
    assert twin.again[1][0] is twin.second
    assert twin.loop["self"] is twin
    assert twin.empty is twin.same
    assert twin.empty is not net.empty
    assert twin.plain == net.plain
    assert twin.plain[1] is not net.plain[1]
    assert type(twin._forward_hooks) is OrderedDict
    assert list(twin.first._forward_hooks) == list(net.first._forward_hooks)
    assert twin.first._forward_hooks is not net.first._forward_hooks
    for ours, theirs in zip(twin.state_dict().values(), net.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()
    twin.empty["new"] = 1
    twin.second.register_forward_hook(lambda *_: None)
    assert not net.empty
    assert not net.second._forward_hooks


def test_layers_of_pytorch_are_copied_at_once() -> None:
    for layer in (
        nn.Conv2d(1, 1, 1),
        nn.BatchNorm2d(1),
        nn.MultiheadAttention(2, 1),
        nn.GELU(),
        nn.Sequential(),
    ):
        assert _is_plain(layer)
        assert vars(quick(layer)).keys() == vars(copy.deepcopy(layer)).keys()
    assert not _is_plain(Counted())


def test_modules_that_copy_themselves_are_asked_once() -> None:
    Counted.copies = 0
    net = nn.Sequential(Counted(), nn.ReLU())
    net.append(net[0])
    twin = quick(net)
    assert Counted.copies == 1
    assert twin[0] is twin[2]
    assert twin[0] is not net[0]


def test_modules_of_other_ways_to_be_stored_are_left_to_deepcopy() -> None:
    class Stored(nn.Linear):
        def __getstate__(self) -> dict[str, Any]:
            return {**vars(self), "told": True}

    twin = quick(nn.Sequential(Stored(1, 1)))
    assert twin[0].told


def test_what_is_replaced_stays_replaced() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    weight = torch.ones(1, 1)
    twin = copied(net, {id(net[0].weight): weight, id(net[1]): net[1]})
    assert twin[0].weight is weight
    assert twin[1] is net[1]
