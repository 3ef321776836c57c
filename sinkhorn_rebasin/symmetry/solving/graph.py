"""Hold the colored graph that the solver takes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, factorize, first_places


@dataclass
class Graph:
    """Hold live nodes with colors and blocks, and edges."""

    nodes: Ids
    color: Ids
    block: Ids
    source: Ids
    target: Ids
    kind: Ids

    def keep(self, alive: NDArray[np.bool_]) -> Graph:
        """Drop nodes that are not alive, with their edges."""
        new = np.full(len(self.nodes), -1, dtype=np.int64)
        new[alive] = np.arange(int(alive.sum()))
        edges = alive[self.source] & alive[self.target]
        return Graph(
            self.nodes[alive],
            self.color[alive],
            self.block[alive],
            new[self.source[edges]],
            new[self.target[edges]],
            self.kind[edges],
        )


def without_trivial(graph: Graph) -> Graph:
    """Drop relations that say nothing.

    Note:
        - A node with itself.
        - All pairs of two colors in a block.
        - Each node of a color with all others of it.
    """
    apart = graph.source != graph.target
    source, target, kind = graph.source[apart], graph.target[apart], graph.kind[apart]
    if len(source):
        cell = factorize(graph.block, graph.color)
        size = np.bincount(cell)[cell]
        bundle = factorize(cell[source], graph.color[target], kind)
        pairs = size[source] * (size[target] - (cell[source] == cell[target]))
        keep = np.bincount(bundle)[bundle] != pairs
        source, target, kind = source[keep], target[keep], kind[keep]
    return Graph(graph.nodes, graph.color, graph.block, source, target, kind)


def forest_of_matchings(graph: Graph) -> tuple[NDArray[np.bool_], Ids]:
    """Choose matchings that connect matched colors without a cycle."""
    root = np.arange(int(graph.color.max()) + 1 if len(graph.color) else 0)
    matched = np.zeros(len(graph.source), dtype=bool)
    if not len(graph.source):
        return matched, root
    left, right = graph.color[graph.source], graph.color[graph.target]
    bundle = factorize(left, right, graph.kind)
    sizes = np.bincount(graph.color)
    matching = (left != right) & (sizes[left] == sizes[right]) & (np.bincount(bundle)[bundle] == sizes[left])

    def find(color: int) -> int:
        while root[color] != color:
            root[color] = color = int(root[root[color]])
        return color

    used = np.zeros(int(bundle.max()) + 1, dtype=bool)
    edges = first_places(factorize(bundle[matching]))
    for edge in np.flatnonzero(matching)[edges]:
        first, second = find(int(left[edge])), find(int(right[edge]))
        if first != second:
            root[second] = first
            used[bundle[edge]] = True
    return used[bundle] & matching, np.array([find(color) for color in range(len(root))], dtype=np.int64)
