"""Find units that lie in equal numbers over tuples of others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, factorize, ranks
from sinkhorn_rebasin.symmetry.solving.graph import Graph
from sinkhorn_rebasin.symmetry.solving.links import links_of_colors


@dataclass(frozen=True)
class Fibres:
    """Hold tuples with an unknown last coordinate.

    Attributes:
        members: the nodes, (n,).
        coordinates: all coordinates of each node but the last, (n, k).
        last: the last coordinate of each node, from 0 on, (n,).
        block: the block of every last coordinate there is.
    """

    members: Ids
    coordinates: Ids
    last: Ids
    block: Ids


def find_fibres(graph: Graph) -> Fibres | None:
    """Find equally many nodes over every tuple.

    The nodes are related to tuples of other nodes and to nothing else. A grid summed over its last axis, for example,
    whose sums are mixed along the axes left.

    Note:
        The nodes of one tuple may be permuted differently in every tuple. Here all tuples are permuted alike.
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
        is_full = np.prod(in_cell[near], axis=1) * size[0] == in_cell[members]
        if not links.entangled and not links.far and (size == size[0]).all() and is_full.all():
            blocks, block = np.unique(graph.block[members], return_inverse=True)
            return Fibres(members, near, block * size[0] + ranks(tuples), np.repeat(blocks, size[0]))
    return None


def without_fibres(graph: Graph, fibres: Fibres, first: int) -> Graph:
    """Replace members by last coordinates, numbered from ``first`` on."""
    alive = np.ones(len(graph.nodes), dtype=bool)
    alive[fibres.members] = False
    left, count = graph.keep(alive), len(fibres.block)
    return replace(
        left,
        nodes=np.concatenate([left.nodes, first + np.arange(count)]),
        color=np.concatenate([left.color, np.full(count, graph.color.max() + 1)]),
        block=np.concatenate([left.block, fibres.block]),
    )
