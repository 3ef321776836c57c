"""Inputs as people have them: wherever their tensors lie, they are found, drawn anew and left alone."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from sinkhorn_rebasin import (
    SinkhornRebasin,
    discover_rescaling,
    discover_symmetry,
    permute_state,
    random_permutations,
    verify_symmetry,
)
from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.structures import tensors_in


@dataclass
class Graph:
    x: Tensor
    edges: Tensor | None = None


class Slots:
    __slots__ = ("x",)

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Store(UserDict[str, Any]):
    "Has its tensors as items and as attributes, as graph batches do."

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:
            raise AttributeError(name)
        return self.data[name]


class Named(NamedTuple):
    kind: Tensor
    x: Tensor


class Net(nn.Module):
    "Two layers behind a function that takes the features out of what it is given."

    def __init__(self, features: Callable[..., Tensor]) -> None:
        super().__init__()
        self.features = features
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, given: Any) -> Tensor:
        return self.b(torch.relu(self.a(self.features(given))))


class Keywords(Net):
    def forward(self, *, first: Any, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(first) * scale


class Writes(Net):
    "Writes to the tensor and to the object, as graph networks do."

    def forward(self, given: Any) -> Tensor:
        given.x.mul_(2)
        given.x = given.x + 1
        return super().forward(given)


class Neighbours(Net):
    def forward(self, given: Any) -> Tensor:
        hidden = torch.relu(self.a(given.x))
        start, end = given.edges
        return self.b(hidden.index_add(0, end, hidden[start]))


def by_attribute(given: Any) -> Tensor:
    return given.x


def second(given: Any) -> Tensor:
    kind, x = given
    return x * (kind > -1)[:, None]


X, KIND = torch.rand(5, 3), torch.zeros(5)
EDGES = torch.tensor([[0, 1, 2], [1, 2, 4]])
CASES: dict[str, tuple[nn.Module, Any]] = {
    "dataclass": (Net(by_attribute), Graph(X)),
    "slots": (Net(by_attribute), Slots(X)),
    "graph": (Neighbours(by_attribute), Graph(X, EDGES)),
    "stores": (Net(lambda g: g["node"].x), ({"node": Graph(X)},)),
    "mapping": (Net(by_attribute), (Store(x=X),)),
    "attributes in lists": (Net(lambda g: g.layers[0]["x"]), SimpleNamespace(layers=[{"x": X}])),
    "tuple": (Net(second), ((KIND, X),)),
    "list": (Net(second), ([KIND, X],)),
    "named tuple": (Net(second), Named(KIND, X)),
    "packed": (Net(lambda g: g.data), pack_sequence([X, X[:2]])),
    "keyword-only": (Keywords(by_attribute), {"first": Graph(X), "scale": torch.rand(())}),
    "written": (Writes(by_attribute), Graph(X)),
}


@pytest.mark.parametrize("name", CASES)
def test_units_are_found_and_the_caller_keeps_its_data(name: str) -> None:
    net, given = CASES[name]
    before = [tensor.clone() for tensor in tensors_in(given)]
    spec = discover_symmetry(net, given)
    assert [group.size for group in spec.groups] == [8]
    assert verify_symmetry(net, spec, given) < 1e-9
    assert "a (positive)" in str(discover_rescaling(net, spec, given))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_in(given), strict=True))
    net = net.double()
    state = permute_state(net.state_dict(), spec, random_permutations(spec))
    wide = _wide(given)
    torch.testing.assert_close(run_at(net, state, wide), run_at(net, {}, wide), rtol=1e-12, atol=1e-12)
    net.float()


def _wide(given: Any) -> Any:
    from sinkhorn_rebasin.networks.structures import replaced

    return replaced(given, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("name", CASES)
def test_a_re_basin_runs_on_them(name: str) -> None:
    net, given = CASES[name]
    rebasin = SinkhornRebasin(net, net, given, start="identity").eval()
    torch.testing.assert_close(rebasin(given), run_at(net, {}, given))
    assert rebasin.spec.validity is not None
    assert len(rebasin.spec.validity.inputs) == len(tensors_in(given))


def test_verification_draws_them_anew() -> None:
    seen: list[Tensor] = []

    def features(given: Any) -> Tensor:
        seen.append(given.x.clone())
        return given.x

    net = Net(features)
    spec = discover_symmetry(net, Graph(X))
    seen.clear()
    verify_symmetry(net, spec, Graph(X), trials=4)
    drawn = {tuple(x.float().flatten().tolist()) for x in seen}
    assert len(drawn) >= 4
    assert not any(x.shape == X.shape and torch.equal(x.float(), X) for x in seen)


def test_what_reads_places_of_an_input_holds_them_fast() -> None:
    "An input in an object is known to the tape: what is added to it position by position may not move."
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU())

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, given: Graph) -> Tensor:
            assert given.edges is not None
            return (self.net(given.x) * given.edges).sum(-1)

    assert discover_symmetry(Added(), Graph(X, torch.rand(8))).groups == ()


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors(layout: torch.layout) -> None:
    given = Graph(torch.nested.nested_tensor([X, X[:2]], layout=layout))
    net = Net(lambda g: g.x.to_padded_tensor(0.0))
    spec = discover_symmetry(net, given)
    assert [group.size for group in spec.groups] == [8]
    assert verify_symmetry(net, spec, given) < 1e-9


def test_a_packed_sequence_is_one_argument_of_a_recurrent_network() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r, self.head = nn.GRU(3, 5), nn.Linear(5, 2)

        def forward(self, packed: PackedSequence) -> Tensor:
            return self.head(self.r(packed)[1][0])

    net, given = Recurrent(), pack_sequence([X, X[:2]])
    spec = discover_symmetry(net, given)
    assert [group.size for group in spec.groups] == [5]
    assert verify_symmetry(net, spec, given) < 1e-9


@pytest.mark.parametrize(
    ("given", "written"), [((KIND, X), r"`\(\(a, b\),\)`"), ([KIND, X], r"`\(\[a, b\],\)`")]
)
def test_a_message_writes_out_the_call_that_works(given: Any, written: str) -> None:
    for call in (discover_symmetry, lambda net, x: run_at(net, {}, x)):
        with pytest.raises(RebasinError, match=f"spread over the arguments of forward.*{written}"):
            call(Net(second), given)


def test_arguments_that_are_lacking_are_written_out() -> None:
    with pytest.raises(RebasinError, match=r"write `\(input1, input2\)`.*`\(\(input1, input2\), labels\)`"):
        discover_symmetry(nn.Bilinear(3, 3, 2), X)
    with pytest.raises(RebasinError, match=r"by their names: if it is one, write `\({...},\)`"):
        discover_symmetry(Net(by_attribute), Store(x=X))


def test_tensors_on_two_devices_are_named() -> None:
    with pytest.raises(RebasinError, match=r"\.x on cpu, \.edges on meta"):
        discover_symmetry(Net(by_attribute), Graph(X, EDGES.to("meta")))
