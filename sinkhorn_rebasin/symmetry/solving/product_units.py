"""Units that are all the tuples of other units, and so need no permutation of their own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, count_distinct, determines, distinct, factorize
from sinkhorn_rebasin.symmetry.solving.graph import Graph
from sinkhorn_rebasin.symmetry.solving.links import Links, both_ends, links_of_colors


@dataclass(frozen=True)
class Product:
    """Nodes of one colour, (n,), and the coordinates of each: one node of each of several other colours, (n, k)."""

    members: Ids
    coordinates: Ids


@dataclass
class _Changes:
    """Edges to drop and to add, and what was taken out; colours that are concerned are left alone from then on."""

    dropped: list[Ids] = field(default_factory=list)
    added: list[tuple[Ids, Ids]] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)

    def applied(self, graph: Graph) -> Graph:
        """The graph that is left."""
        kept = np.ones(len(graph.source), dtype=bool)
        for edges in self.dropped:
            kept[edges % len(kept)] = False
        first = int(graph.kind.max()) + 1
        kinds = [np.full(len(one), first + number) for number, (one, _) in enumerate(self.added)]
        changed = replace(
            graph,
            source=np.concatenate([graph.source[kept], *(source for source, _ in self.added)]),
            target=np.concatenate([graph.target[kept], *(target for _, target in self.added)]),
            kind=np.concatenate([graph.kind[kept], *kinds]),
        )
        alive = np.ones(len(graph.nodes), dtype=bool)
        for product in self.products:
            alive[product.members] = False
        return changed.keep(alive)


def take_out_products(graph: Graph) -> tuple[Graph, list[Product]]:
    """Take out the nodes that are all the tuples of others.

    A colour is a product when each of its nodes is related to one node of each of several other colours, no two
    nodes to the same ones, and every block holds as many nodes as there are tuples in it. Further nodes that are
    each related to one node of the product are related to its coordinates instead. Where, of the colours near a
    node, one tells another, those two are related with each other and the node with the first alone; what is left
    may be a product then. All this says what the relations said before, in other words.
    """
    changes = _Changes()
    if not len(graph.source):
        return graph, []
    node, other = both_ends(graph)
    cell = factorize(graph.block, graph.color)
    in_cell = np.bincount(cell)[cell]
    for links in links_of_colors(graph, free=True):
        if links.entangled:
            continue
        concerned = {links.color, *links.near, *(int(graph.color[other[edges[0]]]) for edges in links.far)}
        if concerned & changes.busy:
            continue
        members = np.flatnonzero(graph.color == links.color)
        implied = _implied(links, len(members))
        if implied:
            for first, second in implied:
                changes.added.append(_pairs(links.near[first], links.near[second]))
                changes.dropped.extend(links.edges[second])
        elif _is_full(links, in_cell, members):
            coordinates = np.stack(list(links.near.values()), axis=1)
            changes.products.append(Product(members, coordinates))
            row = np.empty(len(graph.nodes), dtype=np.int64)
            row[members] = np.arange(len(members))
            for edges in links.far:
                changes.added.extend(_pairs(other[edges], to) for to in coordinates[row[node[edges]]].T)
        else:
            continue
        changes.busy |= concerned
    return changes.applied(graph), changes.products


def _implied(links: Links, count: int) -> list[tuple[int, int]]:
    """Pairs of colours near the nodes, of which there are so many, where the first tells the second.

    No colour is the second of two pairs, and none is a first after it was a second.
    """
    left, found = dict(links.near), []
    sizes = {color: count_distinct(near) for color, near in left.items()}
    for second in links.near:
        for first in left:
            fits = first != second and sizes[second] <= sizes[first] < count
            if fits and determines(left[first], left[second]):
                found.append((first, second))
                del left[second]
                break
    return found


def _is_full(links: Links, in_cell: Ids, members: Ids) -> bool:
    """Whether the nodes of a colour are all the tuples of the nodes near them, in every block."""
    sizes = np.stack([in_cell[near] for near in links.near.values()])
    full = len(sizes) > 1 and bool((sizes > 1).all() and (np.prod(sizes, axis=0) == in_cell[members]).all())
    return full and count_distinct(*links.near.values()) == len(members)


def _pairs(first: Ids, second: Ids) -> tuple[Ids, Ids]:
    one, two = distinct(first, second)
    return one, two
