"""Tensors are found, replaced and copied wherever they lie."""

from __future__ import annotations

import threading
from collections import OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.structures import holds_nothing, named_tensors_in, replaced, tensors_in


@dataclass
class Graph:
    x: Tensor
    more: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Tensor


class Slots:
    __slots__ = ("x",)

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Deep(Slots):
    __slots__ = ("inside",)

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        self.inside = [Graph(x + 1)]


class Named(NamedTuple):
    x: Tensor


class OwnDict(dict[str, Any]):
    pass


class OwnList(list[Any]):
    pass


MADE: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "dataclass": Graph,
    "attributes in containers": lambda x: Graph(x + 1, {"a": [x]}),
    "frozen": Frozen,
    "slots": Slots,
    "inherited slots": Deep,
    "namespace": lambda x: SimpleNamespace(a=SimpleNamespace(b=(x,))),
    "named tuple": Named,
    "packed": lambda x: pack_sequence([x, x[:1]]),
    "own dict": lambda x: OwnDict(x=x),
    "own list": lambda x: OwnList([x]),
    "user dict": lambda x: UserDict(x=x),
    "ordered": lambda x: OrderedDict(x=x),
    "default": lambda x: defaultdict(list, x=[x]),
    "deque": lambda x: deque([x]),
    "nested": lambda x: torch.nested.nested_tensor([x, x[:1]]),
    "jagged": lambda x: torch.nested.nested_tensor([x, x[:1]], layout=torch.jagged),
    "sparse": lambda x: x.to_sparse(),
    "with a lock": lambda x: SimpleNamespace(x=x, lock=threading.Lock(), network=nn.Linear(1, 1)),
}


def values(structure: Any) -> list[Tensor]:
    dense = [t.to_padded_tensor(0.0) if t.is_nested else t.to_dense() for t in tensors_in(structure)]
    return [tensor.clone() for tensor in dense]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", MADE)
def test_a_copy_shares_nothing(name: str) -> None:
    given = MADE[name](torch.ones(3, 2))
    before = values(given)
    assert before
    copy = replaced(given, torch.clone)
    assert type(copy) is type(given)
    own = {id(tensor) for tensor in tensors_in(given)}
    for tensor in tensors_in(copy):
        assert id(tensor) not in own
        tensor.zero_() if not tensor.is_sparse else tensor.mul_(0)
    for one, other in zip(before, values(given), strict=True):
        assert torch.equal(one, other)
    assert all(not tensor.any() for tensor in values(copy))


def test_attributes_that_are_set_on_a_copy_stay_there() -> None:
    graph = Graph(torch.ones(2), {"a": []})
    copy = replaced(graph, torch.clone)
    copy.x = None
    copy.more["a"].append(torch.ones(1))
    assert graph.x is not None
    assert graph.more == {"a": []}


def test_lengths_of_packed_sequences_are_not_replaced() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    other: PackedSequence = replaced(packed, lambda tensor: tensor * 0)
    assert torch.equal(other.batch_sizes, packed.batch_sizes)
    assert not other.data.any()
    moved: PackedSequence = replaced(packed, lambda tensor: tensor.to("meta"))
    assert moved.data.is_meta
    assert moved.batch_sizes.device.type == "cpu"


def test_paths_are_written_as_in_python() -> None:
    graph = Graph(torch.ones(1), {"edges": [torch.ones(2)]})
    assert [path for path, _ in named_tensors_in((graph, Slots(torch.ones(3))))] == [
        "[0].x",
        "[0].more['edges'][0]",
        "[1].x",
    ]


def test_what_holds_itself_is_walked_once() -> None:
    graph = SimpleNamespace(x=torch.ones(2))
    graph.own = graph
    copy = replaced([graph, graph], torch.zeros_like)
    assert copy[0] is copy[1] is copy[0].own
    assert not copy[0].x.any()


def test_one_tensor_at_two_places_stays_one() -> None:
    x = torch.ones(2)
    first, second = replaced((Graph(x), Slots(x)), torch.clone)
    assert first.x is second.x is not x


def test_gradients_flow_into_objects() -> None:
    x = torch.ones(2, requires_grad=True)
    replaced(Graph(x), torch.clone).x.sum().backward()
    assert x.grad is not None


def test_what_cannot_be_copied_and_holds_tensors_is_named() -> None:
    class Closed:
        def __init__(self, x: Tensor) -> None:
            self.x = x

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies")

    with pytest.raises(DataError, match=r"Closed.*no copies.*__deepcopy__"):
        replaced(Closed(torch.ones(1)), torch.clone)


def test_nothing_is_told_from_something() -> None:
    for nothing in (None, [], {"x": None}, object(), SimpleNamespace(), SimpleNamespace(x=[])):
        assert holds_nothing(nothing)
    for something in (torch.ones(1), ["text"], torch.ones(1).numpy(), Graph(torch.ones(1)), (0,)):
        assert not holds_nothing(something)
