"""Graph networks: torch_geometric, egnn_pytorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import graph
from experiments.zoo.packages_models.network import Field

GRAPHS = Field()
_network = GRAPHS.network
SIZES = {"in_channels": 4, "hidden_channels": 32, "num_layers": 3, "out_channels": 2}


class Layers(nn.Module):
    """Graph convolutions with ReLU between them; each takes nodes, edges and what else the network is given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, nodes: Tensor, *edge_parts: Any) -> Tensor:
        for layer in self.layers[:-1]:
            nodes = layer(nodes, *edge_parts).relu()
        found: Tensor = self.layers[-1](nodes, *edge_parts)
        return found


class PerGraph(nn.Module):
    """A graph network, a pooling of each graph's nodes, and a linear head."""

    def __init__(self, body: nn.Module, pooling: Any, features: int) -> None:
        super().__init__()
        self.body, self.pooling, self.head = body, pooling, nn.Linear(features, 2)

    def forward(self, nodes: Tensor, edge_index: Tensor, graph_of: Tensor) -> Tensor:
        found: Tensor = self.head(self.pooling(self.body(nodes, edge_index), graph_of))
        return found


def graphs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Several graphs in one: the third tensor tells which each node belongs to."""
    nodes, edge_index = graph(batch)
    return nodes, edge_index, torch.arange(batch).repeat_interleave(4)


def typed_graph(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    nodes, edge_index = graph(batch)
    return nodes, edge_index, torch.randint(0, 3, edge_index.shape[1:])


def featured_graph(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    nodes, edge_index = graph(batch)
    return nodes, edge_index, torch.randn(edge_index.shape[1], 3)


def molecules(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kinds of atoms, positions, and which molecule they belong to."""
    return (
        torch.randint(1, 10, (4 * batch,)),
        torch.randn(4 * batch, 3),
        torch.arange(batch).repeat_interleave(4),
    )


@_network("torch-geometric", graph)
def gcn() -> nn.Module:
    from torch_geometric.nn import GCN

    return GCN(**SIZES)


@_network("torch-geometric", graph)
def graph_sage() -> nn.Module:
    from torch_geometric.nn import GraphSAGE

    return GraphSAGE(**SIZES)


@_network("torch-geometric", graph)
def gat() -> nn.Module:
    from torch_geometric.nn import GAT

    return GAT(**SIZES, heads=4)


@_network("torch-geometric", graph)
def gatv2() -> nn.Module:
    from torch_geometric.nn import GAT

    return GAT(**SIZES, heads=4, v2=True)


@_network("torch-geometric", graphs)
def gin() -> nn.Module:
    from torch_geometric.nn import GIN, global_add_pool

    return PerGraph(GIN(**{**SIZES, "out_channels": 16}, norm="batch_norm"), global_add_pool, 16)


@_network("torch-geometric", graph)
def pna() -> nn.Module:
    from torch_geometric.nn import PNA

    kinds = {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification"]}
    return PNA(**SIZES, **kinds, deg=torch.tensor([0, 1, 2, 9, 3]))


@_network("torch-geometric", graph)
def edge_cnn() -> nn.Module:
    from torch_geometric.nn import EdgeCNN

    return EdgeCNN(**SIZES)


@_network("torch-geometric", graph)
def graph_transformer() -> nn.Module:
    from torch_geometric.nn import TransformerConv

    return Layers(TransformerConv(4, 8, heads=4), TransformerConv(32, 8, heads=4, beta=True), nn_last(32))


def nn_last(features: int) -> nn.Module:
    from torch_geometric.nn import GraphConv

    return GraphConv(features, 2)


@_network("torch-geometric", typed_graph)
def rgcn() -> nn.Module:
    from torch_geometric.nn import RGCNConv

    return Layers(RGCNConv(4, 16, 3), RGCNConv(16, 16, 3, num_bases=2), RGCNConv(16, 2, 3))


@_network("torch-geometric", graph)
def arma() -> nn.Module:
    from torch_geometric.nn import ARMAConv

    return Layers(ARMAConv(4, 16, num_stacks=2, num_layers=2), ARMAConv(16, 2))


@_network("torch-geometric", graph)
def chebyshev() -> nn.Module:
    from torch_geometric.nn import ChebConv

    return Layers(ChebConv(4, 16, 3), ChebConv(16, 16, 3), ChebConv(16, 2, 2))


@_network("torch-geometric", featured_graph)
def edge_conditioned() -> nn.Module:
    from torch_geometric.nn import NNConv

    def maker(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, inputs * outputs))

    return Layers(NNConv(4, 12, maker(4, 12)), NNConv(12, 12, maker(12, 12)), NNConv(12, 2, maker(12, 2)))


@_network("torch-geometric", featured_graph)
def gine() -> nn.Module:
    from torch_geometric.nn import GINEConv

    def mlp(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))

    return Layers(
        GINEConv(mlp(4, 16), edge_dim=3), GINEConv(mlp(16, 16), edge_dim=3), GINEConv(mlp(16, 2), edge_dim=3)
    )


@_network("torch-geometric", graph)
def gated_graph() -> nn.Module:
    from torch_geometric.nn import GatedGraphConv, GCNConv

    return Layers(GCNConv(4, 16), GatedGraphConv(16, 2), GCNConv(16, 2))


@_network("torch-geometric", graphs)
def set_to_set() -> nn.Module:
    from torch_geometric.nn import GCN
    from torch_geometric.nn.aggr import Set2Set

    return PerGraph(GCN(**{**SIZES, "out_channels": 16}), Set2Set(16, 2), 32)


@_network("torch-geometric", graphs)
def attentional_pooling() -> nn.Module:
    from torch_geometric.nn import GraphSAGE
    from torch_geometric.nn.aggr import AttentionalAggregation

    gate = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    return PerGraph(GraphSAGE(**{**SIZES, "out_channels": 16}), AttentionalAggregation(gate), 16)


@_network("torch-geometric", graph)
def gps() -> nn.Module:
    from torch_geometric.nn import GCNConv, GINConv, GPSConv

    def layer() -> nn.Module:
        mlp = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        return GPSConv(16, GINConv(mlp), heads=4, norm="layer_norm")

    return Layers(GCNConv(4, 16), layer(), layer(), GCNConv(16, 2))


@_network("torch-geometric", graph)
def generalized() -> nn.Module:
    from torch_geometric.nn import GCNConv, GENConv

    return Layers(
        GENConv(4, 16, learn_t=True), GENConv(16, 16, aggr="powermean", learn_p=True), GCNConv(16, 2)
    )


@_network("torch-geometric", molecules)
def schnet() -> nn.Module:
    from torch_geometric.nn import SchNet

    def all_pairs(positions: Tensor, molecule: Tensor) -> tuple[Tensor, Tensor]:
        """Every pair of atoms of one molecule, without torch-cluster."""
        same = (molecule[:, None] == molecule) & ~torch.eye(len(molecule), dtype=torch.bool)
        pairs = same.nonzero().T
        return pairs, (positions[pairs[0]] - positions[pairs[1]]).norm(dim=-1)

    return SchNet(16, 16, 2, 8, interaction_graph=all_pairs)


@_network("egnn-pytorch", lambda batch: (torch.randint(0, 9, (batch, 6)), torch.randn(batch, 6, 3)))
def egnn() -> nn.Module:
    from egnn_pytorch import EGNN_Network

    return EGNN_Network(num_tokens=9, dim=16, depth=2)
