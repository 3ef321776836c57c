"""Graph networks: messages along edges that data tell, added up, averaged or compared at the nodes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import Case, Function

NODES, EDGES, HEADS = 7, 12, 2


def graph() -> tuple[Tensor, Tensor]:
    """Features of seven nodes, and the two ends of twelve edges."""
    return torch.randn(NODES, 3), torch.randint(NODES, (2, EDGES))


def added_up(messages: Tensor, ends: Tensor, nodes: int) -> Tensor:
    """Messages summed at their nodes, the index expanded over the channels."""
    index = ends.view(-1, *[1] * (messages.dim() - 1)).expand_as(messages)
    return messages.new_zeros(nodes, *messages.shape[1:]).scatter_add_(0, index, messages)


def reduced_by(reduce: str) -> Callable[[Tensor, Tensor, int], Tensor]:
    def run(messages: Tensor, ends: Tensor, nodes: int) -> Tensor:
        index = ends.view(-1, 1).expand_as(messages)
        empty = messages.new_zeros(nodes, messages.shape[1])
        return empty.scatter_reduce_(0, index, messages, reduce, include_self=False)

    return run


def index_reduced(messages: Tensor, ends: Tensor, nodes: int) -> Tensor:
    return messages.new_ones(nodes, messages.shape[1]).index_reduce(0, ends, messages, "amax")


def segments(messages: Tensor, ends: Tensor, nodes: int) -> Tensor:
    counts = added_up(torch.ones_like(ends), ends, nodes)
    return torch.segment_reduce(messages[ends.argsort()], "mean", lengths=counts, axis=0, initial=0.0)


def softmax_at_nodes(scores: Tensor, ends: Tensor, nodes: int) -> Tensor:
    """A softmax over the edges that end at a node, for every head."""
    index = ends.view(-1, 1).expand_as(scores)
    highest = scores.new_full((nodes, scores.shape[1]), -1e9).scatter_reduce(0, index, scores, "amax")
    raised = (scores - highest[ends]).exp()
    return raised / (added_up(raised, ends, nodes)[ends] + 1e-9)


def graph_net(layer: Callable[[int, int], nn.Module], width: int = 1) -> nn.Module:
    """Two layers of one kind and a readout."""
    return Function(
        lambda net, x, edges: net.last(net.second(net.first(x, edges).relu(), edges).relu()),
        first=layer(3, 6),
        second=layer(6 * width, 5),
        last=nn.Linear(5 * width, 2),
    )


class Convolution(nn.Module):
    """GCN: linear, normalised by the degrees of both ends."""

    def __init__(self, inputs: int, outputs: int, add: Callable[..., Tensor] = added_up) -> None:
        super().__init__()
        self.linear, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))
        self.add = add

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        degree = added_up(x.new_ones(len(source)), target, len(x)).clamp(min=1).rsqrt()
        h = self.linear(x)
        messages = (degree[source] * degree[target])[:, None] * h.index_select(0, source)
        return self.add(messages, target, len(x)) + self.bias


class Attention(nn.Module):
    """GAT, and GATv2 where the nonlinearity comes before the product."""

    def __init__(self, inputs: int, outputs: int, second: bool = False) -> None:
        super().__init__()
        self.second, self.shape = second, (-1, HEADS, outputs)
        self.linear = nn.Linear(inputs, HEADS * outputs)
        self.other = nn.Linear(inputs, HEADS * outputs) if second else None
        self.here = nn.Parameter(torch.randn(1, HEADS, outputs))
        self.there = None if second else nn.Parameter(torch.randn(1, HEADS, outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        h = self.linear(x).view(self.shape)
        if self.other is not None:
            pairs = h[source] + self.other(x).view(self.shape)[target]
            scores = (F.leaky_relu(pairs, 0.2) * self.here).sum(-1)
        else:
            scores = F.leaky_relu((h * self.here).sum(-1)[source] + (h * self.there).sum(-1)[target], 0.2)
        share = softmax_at_nodes(scores, target, len(x))
        return added_up(h[source] * share[..., None], target, len(x)).flatten(1)


class Sage(nn.Module):
    """GraphSAGE: a linear of the node, and one of the mean of its neighbours."""

    def __init__(self, inputs: int, outputs: int, reduce: str = "mean") -> None:
        super().__init__()
        self.own, self.near = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.gather = reduced_by(reduce)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.own(x) + self.near(self.gather(x[edges[0]], edges[1], len(x)))


class Isomorphism(nn.Module):
    """GIN: a small MLP of the node plus the sum of its neighbours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(inputs, 4), nn.Linear(4, outputs)
        self.norm, self.epsilon = nn.BatchNorm1d(4), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = (1 + self.epsilon) * x + added_up(x[edges[0]], edges[1], len(x))
        return self.down(self.norm(self.up(h)).relu())


class Relational(nn.Module):
    """RGCN: a matrix for each of three kinds of edges, in two bases."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bases, self.mix = nn.Parameter(torch.randn(2, inputs, outputs)), nn.Parameter(torch.randn(3, 2))
        self.root = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        matrices = (self.mix @ self.bases.flatten(1)).view(3, *self.bases.shape[1:])
        out = self.root(x)
        for kind, matrix in enumerate(matrices):
            source, target = edges[:, kind::3]
            messages = x[source] @ matrix
            index = target.view(-1, 1).expand_as(messages)
            mean = torch.zeros_like(out).scatter_reduce(0, index, messages, "mean", include_self=False)
            out = out + mean
        return out


class Transforming(nn.Module):
    """TransformerConv: queries at the target, keys and values at the source of an edge."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.skip = (nn.Linear(inputs, HEADS * outputs) for _ in range(4))
        self.shape = (-1, HEADS, outputs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        q, k, v = (layer(x).view(self.shape) for layer in (self.q, self.k, self.v))
        share = softmax_at_nodes((q[target] * k[source]).sum(-1), target, len(x))
        return added_up(v[source] * share[..., None], target, len(x)).flatten(1) + self.skip(x)


def adjacency(layout: str) -> Callable[[], tuple[Tensor, Tensor]]:
    def make() -> tuple[Tensor, Tensor]:
        dense = torch.rand(NODES, NODES) * (torch.rand(NODES, NODES) < 0.4)
        return torch.randn(NODES, 3), dense.to_sparse() if layout == "coo" else dense.to_sparse_csr()

    return make


def sparse_net() -> nn.Module:
    return Function(
        lambda net, x, near: net.b(torch.sparse.mm(near, torch.sparse.mm(near, net.a(x)).relu())),
        a=nn.Linear(3, 6),
        b=nn.Linear(6, 2),
    )


HEADED = ((2, 1), (6, 2), (2, 1), (5, 2))

CASES = [
    Case("graph_convolution", lambda: graph_net(Convolution), graph, ((6, 1), (5, 1))),
    Case(
        "graph_convolution_by_index_reduce",
        lambda: graph_net(lambda i, o: Convolution(i, o, index_reduced)),
        graph,
        ((6, 1), (5, 1)),
    ),
    Case(
        "graph_convolution_by_segments",
        lambda: graph_net(lambda i, o: Convolution(i, o, segments)),
        graph,
        ((6, 1), (5, 1)),
    ),
    *(
        Case(
            f"graph_sage_by_{reduce}",
            lambda reduce=reduce: graph_net(lambda i, o: Sage(i, o, reduce)),
            graph,
            ((6, 1), (5, 1)),
        )
        for reduce in ("mean", "amax", "prod")
    ),
    Case("graph_isomorphism", lambda: graph_net(Isomorphism), graph, ((4, 1), (6, 1), (4, 1), (5, 1))),
    Case("graph_attention", lambda: graph_net(Attention, HEADS), graph, HEADED),
    Case(
        "graph_attention_of_the_second_kind",
        lambda: graph_net(lambda i, o: Attention(i, o, second=True), HEADS),
        graph,
        HEADED,
    ),
    Case("graph_transformer", lambda: graph_net(Transforming, HEADS), graph, (*HEADED, (6, 2), (5, 2))),
    Case(
        "relational_graph_convolution", lambda: graph_net(Relational), graph, ((6, 1), (5, 1), (2, 1), (2, 1))
    ),
    Case("sparse_adjacency", sparse_net, adjacency("coo"), ((6, 1),)),
    Case("compressed_sparse_adjacency", sparse_net, adjacency("csr"), ((6, 1),)),
]
