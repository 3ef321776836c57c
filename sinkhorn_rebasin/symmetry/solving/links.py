"""Find the one node of another color related to each node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, distinct, factorize
from sinkhorn_rebasin.symmetry.solving.graph import Graph


@dataclass
class Links:
    """Hold the relations of one color's nodes.

    Every edge counts from both ends.

    Attributes:
        near: by color, the one node of the color related to each node.
        edges: the edges behind ``near``.
        far: edges of further nodes, each related to one node here; one array a kind.
        entangled: whether other edges remain.
    """

    color: int
    near: dict[int, Ids] = field(default_factory=dict)
    edges: dict[int, list[Ids]] = field(default_factory=dict)
    far: list[Ids] = field(default_factory=list)
    entangled: bool = False


def both_ends(graph: Graph) -> tuple[Ids, Ids]:
    """List all edges in both directions."""
    return np.concatenate([graph.source, graph.target]), np.concatenate([graph.target, graph.source])


def links_of_colors(graph: Graph, *, free: bool) -> Iterator[Links]:
    """Yield the links of colors with single neighbors.

    With ``free``, only colors with several near colors and no other edges.
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
    selected = (count > 1) & ~entangled if free else count > 0
    # Numbers of bundles go up with the colour.
    bundles = np.split(order, starts[1:])
    ends = np.searchsorted(color, np.arange(colors + 1))
    for color_number in np.flatnonzero(selected):
        links = Links(int(color_number), entangled=bool(entangled[color_number]))
        for number in range(ends[color_number], ends[color_number + 1]):
            edges = bundles[number]
            if not single[number]:
                links.far.append(edges)
            elif near[number] != color_number:
                neighbours = other[edges][np.argsort(node[edges], kind="stable")]
                known = links.near.setdefault(int(near[number]), neighbours)
                links.edges.setdefault(int(near[number]), []).append(edges)
                links.entangled |= not np.array_equal(known, neighbours)
        yield links
