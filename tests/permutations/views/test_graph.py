from __future__ import annotations

import re
import sys
from dataclasses import replace

import networkx as nx
import pytest
import torch
from torch import nn

from sinkhorn_rebasin.permutations import Frozen, PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import case
from tests.permutations.specs import NESTED, SPECS, WHOLE

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


@every_spec
def test_the_graph_says_what_the_spec_says(spec: PermutationSpec) -> None:
    graph = spec.to_networkx()
    groups = {node[1]: data for node, data in graph.nodes(data=True) if data["kind"] == "group"}
    tensors = {node[1]: data for node, data in graph.nodes(data=True) if data["kind"] == "tensor"}
    assert {name: (data["size"], data["blocks"]) for name, data in groups.items()} == {
        group.name: (group.size, group.blocks) for group in spec.groups
    }
    assert {name: data["shape"] for name, data in tensors.items()} == dict(spec.shapes)
    edges = [(a[1], b[1], data) for a, b, data in graph.edges(data=True)]
    slots = {(a, b, data["axes"], data["layout"]) for a, b, data in edges if data["kind"] == "slot"}
    assert slots == {(slot.group, slot.tensor, slot.axes, slot.layout) for slot in spec.slots}
    assert graph.number_of_edges() == len(spec.slots) + sum(group.parent is not None for group in spec.groups)
    parents = {(a, b) for a, b, data in edges if data["kind"] == "parent"}
    assert parents == {(group.parent, group.name) for group in spec.groups if group.parent}


def test_without_the_parents_the_graph_is_bipartite() -> None:
    graph = NESTED.to_networkx()
    graph.remove_edges_from([edge for edge in graph.edges if graph.edges[edge]["kind"] == "parent"])
    tops = {node for node, side in graph.nodes(data="bipartite") if side == 0}
    assert nx.bipartite.is_bipartite_node_set(graph.to_undirected(), tops)


def test_frozen_axes_and_buffers_are_attributes_of_tensors() -> None:
    spec = replace(WHOLE, frozen=(Frozen("free", 0, "why"),), buffers=frozenset({"free"}))
    data = spec.to_networkx().nodes["tensor", "free"]
    assert (data["frozen"], data["buffer"]) == ({0: "why"}, True)


def test_a_group_and_a_tensor_of_one_name_are_two_nodes() -> None:
    spec = PermutationSpec.from_axes_to_perm({"weight": ("weight", None)}, nn.Linear(3, 2))
    assert spec.to_networkx().number_of_nodes() == 3


def test_where_networkx_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"sinkhorn-rebasin-layer\[graph\]"):
        WHOLE.to_networkx()


def arrows(text: str) -> dict[tuple[str, str], str]:
    """Arrows of a flowchart by what their ends are called."""
    labels = {
        name: label.split("<br/>")[0] for name, label in re.findall(r'^ +(g\d+)\["(.*)"\]$', text, re.M)
    }
    found = re.findall(r'^ +(\w+) -- "(.*)" --> (\w+)$', text, re.M)
    return {(labels.get(a, a), labels.get(b, b)): tensors for a, tensors, b in found}


def test_a_residual_network_by_hand() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(self.norm(self.up(x)).relu())

    net = nn.Sequential(nn.Linear(3, 4), Block(), Block(), nn.Linear(4, 2))
    assert arrows(discover_symmetry(net, torch.randn(5, 3)).to_mermaid()) == {
        ("input", "0"): "0.weight",
        ("0", "1/up"): "1.up.weight",
        ("1/up", "0"): "1.down.weight",
        ("0", "2/up"): "2.up.weight",
        ("2/up", "0"): "2.down.weight",
        ("0", "output"): "3.weight",
    }


def test_embeddings_come_from_the_input() -> None:
    net = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 2))
    text = discover_symmetry(net, torch.randint(9, (4, 3))).to_mermaid()
    assert arrows(text) == {("input", "0"): "0.weight", ("0", "output"): "1.weight"}


def test_what_something_else_froze_ends_as_fixed() -> None:
    spec = replace(
        WHOLE, frozen=(Frozen("out", 0, "aten.sort depends on the order of its axis", "aten.sort"),)
    )
    assert arrows(spec.to_mermaid()) == {("a", "fixed"): "out"}


def test_nested_groups_hang_on_their_parents() -> None:
    made = case("attention")
    spec = discover_symmetry(made.make(), made.make_inputs())
    text = spec.to_mermaid()
    nested = [group for group in spec.groups if group.parent]
    assert nested
    assert text.count("-. holds .->") == len(nested)
    for group in nested:
        assert not any(group.name in ends for ends in arrows(text))


def test_parallel_tensors_share_an_arrow_and_long_labels_are_cut() -> None:
    tensors = {f"h.{n}.w": ("P", "Q") for n in range(5)} | {f"{n}": ("P", "Q") for n in ("a", "b", "c", "d")}
    state = {name: torch.zeros(3, 2) for name in tensors}
    text = PermutationSpec.from_axes_to_perm(tensors, state).to_mermaid()
    assert arrows(text) == {("Q", "P"): "h.{0..4}.w<br/>a<br/>b<br/>and 2 more"}


def test_quotes_and_number_signs_are_escaped() -> None:
    spec = PermutationSpec.from_axes_to_perm({"w": ('a"b#2', None)}, {"w": torch.zeros(3, 2)})
    assert 'g0["a#quot;b#35;2<br/>3 units"]' in spec.to_mermaid()


def test_positions_in_kernels_are_no_ends() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    text = discover_symmetry(net, torch.randn(2, 3, 9, 9)).to_mermaid()
    assert arrows(text) == {("input", "0"): "0.weight", ("0", "output"): "3.weight"}
