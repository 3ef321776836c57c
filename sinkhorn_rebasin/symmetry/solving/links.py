"""To which other nodes each node of a colour is related, when that is one of a kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, distinct, factorize
from sinkhorn_rebasin.symmetry.solving.graph import Graph


@dataclass
class Links:
    """What the nodes of one colour are related to; every edge counts from both ends.

    Attributes:
        near: per colour, the one node of it that each node is related to.
        edges: the edges that say so.
        far: edges of further nodes that are related to one node of the colour each: one array a kind.
        entangled: whether there are other edges yet.
    """

    color: int
    near: dict[int, Ids] = field(default_factory=dict)
    edges: dict[int, list[Ids]] = field(default_factory=dict)
    far: list[Ids] = field(default_factory=list)
    entangled: bool = False


def both_ends(graph: Graph) -> tuple[Ids, Ids]:
    """The nodes and their neighbours of all edges, and of all edges the other way round."""
    return np.concatenate([graph.source, graph.target]), np.concatenate([graph.target, graph.source])


def links_of_colors(graph: Graph, *, free: bool) -> Iterator[Links]:
    """The links of every colour whose nodes are related to one node of another; free ones: of several others alone.

    What is free is not entangled, as far as can be told at once.
    """
    node, other = both_ends(graph)
    direction = np.repeat([0, 1], len(graph.source))
    bundle = factorize(graph.color[node], graph.color[other], 2 * np.tile(graph.kind, 2) + direction)
    order = np.argsort(bundle, kind="stable")
    starts = np.flatnonzero(np.diff(bundle[order], prepend=-1))
    first, size = order[starts], np.bincount(bundle)
    nodes = np.bincount(distinct(bundle, node)[0])
    color, near = graph.color[node[first]], graph.color[other[first]]
    single = (size == nodes) & (nodes == np.bincount(graph.color)[color])
    # The same edges from their other end.
    shared = single[bundle[(first + len(graph.source)) % len(node)]]
    colors = int(graph.color.max()) + 1
    count = np.bincount(color[single & (color != near)], minlength=colors)
    entangled = np.bincount(color[(~single & ~shared) | (color == near)], minlength=colors) > 0
    chosen = (count > 1) & ~entangled if free else count > 0
    # Numbers of bundles go up with the colour.
    bundles = np.split(order, starts[1:])
    ends = np.searchsorted(color, np.arange(colors + 1))
    for one in np.flatnonzero(chosen):
        links = Links(int(one), entangled=bool(entangled[one]))
        for number in range(ends[one], ends[one + 1]):
            edges = bundles[number]
            if not single[number]:
                links.far.append(edges)
            elif near[number] != one:
                neighbours = other[edges][np.argsort(node[edges], kind="stable")]
                known = links.near.setdefault(int(near[number]), neighbours)
                links.edges.setdefault(int(near[number]), []).append(edges)
                links.entangled |= not np.array_equal(known, neighbours)
        yield links
