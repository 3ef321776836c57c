"""Units of which the same number goes with every tuple of others: what is tried when the solver is stuck."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, factorize, ranks
from sinkhorn_rebasin.symmetry.solving.graph import Graph
from sinkhorn_rebasin.symmetry.solving.links import links_of_colors


@dataclass(frozen=True)
class Fibres:
    """Nodes that are tuples but for a last coordinate.

    Shapes:
        ``members`` is (n,), their coordinates but the last (n, k), and the last, numbered from 0 on, (n,).
        ``block`` holds the block of every last coordinate there is.
    """

    members: Ids
    coordinates: Ids
    last: Ids
    block: Ids


def find_fibres(graph: Graph) -> Fibres | None:
    """A colour whose nodes are related to tuples of others and nothing else, the same number of nodes to each tuple.

    A grid that is summed over its last axis, for example, and whose sums are mixed along the axes that are left. The
    nodes of one tuple may be permuted freely, in every tuple in another way. Here all tuples are permuted in one way.
    """
    if not len(graph.source):
        return None
    cell = factorize(graph.block, graph.color)
    in_cell = np.bincount(cell)[cell]
    for links in links_of_colors(graph, free=True):
        members = np.flatnonzero(graph.color == links.color)
        near = np.stack(list(links.near.values()), axis=1)
        tuples = factorize(*near.T)
        size = np.bincount(tuples)
        full = np.prod(in_cell[near], axis=1) * size[0] == in_cell[members]
        if not links.entangled and not links.far and (size == size[0]).all() and full.all():
            blocks, block = np.unique(graph.block[members], return_inverse=True)
            return Fibres(members, near, block * size[0] + ranks(tuples), np.repeat(blocks, size[0]))
    return None


def without_fibres(graph: Graph, fibres: Fibres, first: int) -> Graph:
    """The graph without the members, and with nodes for the last coordinates, numbered from ``first`` on."""
    alive = np.ones(len(graph.nodes), dtype=bool)
    alive[fibres.members] = False
    left, count = graph.keep(alive), len(fibres.block)
    return replace(
        left,
        nodes=np.concatenate([left.nodes, first + np.arange(count)]),
        color=np.concatenate([left.color, np.full(count, graph.color.max() + 1)]),
        block=np.concatenate([left.block, fibres.block]),
    )
