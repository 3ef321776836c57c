"""Find units that are all tuples of others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, count_distinct, determines, distinct, factorize
from sinkhorn_rebasin.symmetry.solving.graph import Graph
from sinkhorn_rebasin.symmetry.solving.links import Links, both_ends, links_of_colors


@dataclass(frozen=True)
class Product:
    """Hold nodes (n,) and coordinates (n, k).

    The coordinates are one node of each of several other colors.
    """

    members: Ids
    coordinates: Ids


@dataclass
class _Changes:
    """Collect edges to drop and add, and products.

    Colors in ``busy`` are left alone from then on.
    """

    dropped: list[Ids] = field(default_factory=list)
    added: list[tuple[Ids, Ids]] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)

    def applied(self, graph: Graph) -> Graph:
        """Return the graph after all changes."""
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
    """Take out nodes that are all tuples.

    1. A color is a product when each node is related to one node of several other colors, no two nodes to the same
       ones, and every block holds as many nodes as tuples.
    2. Further nodes with one node of the product are related to its coordinates instead.
    3. Where one near color determines another, the two are related directly. What is left may be a product then.

    Note:
        The graph returned says the same in other words.
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
    """Pair colors where one determines another.

    Note:
        - No color is the second of two pairs.
        - No color is a first after it was a second.
    """
    left, implied = dict(links.near), []
    sizes = {color: count_distinct(near) for color, near in left.items()}
    for second in links.near:
        for first in left:
            fits = first != second and sizes[second] <= sizes[first] < count
            if fits and determines(left[first], left[second]):
                implied.append((first, second))
                del left[second]
                break
    return implied


def _is_full(links: Links, in_cell: Ids, members: Ids) -> bool:
    """Tell whether nodes fill all tuples, in every block."""
    sizes = np.stack([in_cell[near] for near in links.near.values()])
    full = len(sizes) > 1 and bool((sizes > 1).all() and (np.prod(sizes, axis=0) == in_cell[members]).all())
    return full and count_distinct(*links.near.values()) == len(members)


def _pairs(first: Ids, second: Ids) -> tuple[Ids, Ids]:
    """List distinct pairs of two columns.

    >>> [side.tolist() for side in _pairs(np.array([0, 0, 1]), np.array([2, 2, 2]))]
    [[0, 1], [2, 2]]
    """
    one, two = distinct(first, second)
    return one, two
