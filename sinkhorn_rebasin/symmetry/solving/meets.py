"""Units that nothing in the network stands for, but that others share: what is tried when the solver is stuck."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, count_distinct, distinct, ranks
from sinkhorn_rebasin.symmetry.solving.graph import Graph
from sinkhorn_rebasin.symmetry.solving.links import Links, links_of_colors


@dataclass(frozen=True)
class Meet:
    """Parts that the nodes of two colours share: the nodes, (n,), and the part of each, from 0 on, (n,)."""

    nodes: Ids
    parts: Ids


def find_meets(graph: Graph) -> Iterator[Meet]:
    """What nodes of two colours share where only nodes that are related to both tell.

    Of a grid with three axes, for example, the sums over the first are nodes and the sums over the last. The lines
    along which only the middle place is the same are the parts into which the grid joins the two kinds of sums.
    Relations that are preserved preserve the parts, so that these may be units too, related to what lies in them.
    """
    if not len(graph.source):
        return
    rank = ranks(graph.color)
    links = {each.color: each for each in links_of_colors(graph, free=False)}
    reached: dict[int, dict[int, Ids]] = {}
    for each in links.values():
        for first, second in combinations(each.near, 2):
            one, two = each.near[first], each.near[second]
            meet = _meet(graph, one, two)
            if meet is None:
                continue
            for color in (first, second):
                if color not in reached:
                    reached[color] = _reached(color, graph.color, rank, links)
            told = reached[first].keys() & reached[second].keys()
            both = [(reached[first][c][rank[one]], reached[second][c][rank[two]]) for c in told]
            count = int(meet.parts.max()) + 1
            if not any(np.array_equal(*parts) and count_distinct(parts[0]) == count for parts in both):
                yield meet


def with_meets(graph: Graph, meets: Sequence[Meet], first: int) -> Graph:
    """The graph with a node for every part, numbered from ``first`` on, that is related to the nodes in the part."""
    nodes, colors, blocks = [graph.nodes], [graph.color], [graph.block]
    source, target, kinds = [graph.source], [graph.target], [graph.kind]
    for number, meet in enumerate(meets, start=1):
        _, one = np.unique(meet.parts, return_index=True)
        place = sum(len(each) for each in nodes)
        nodes.append(first + place - len(graph.nodes) + np.arange(len(one)))
        colors.append(np.full(len(one), graph.color.max() + number))
        blocks.append(graph.block[meet.nodes[one]])
        source.append(meet.nodes)
        target.append(place + meet.parts)
        kinds.append(np.full(len(meet.nodes), graph.kind.max() + number))
    parts = (nodes, colors, blocks, source, target, kinds)
    return Graph(*(np.concatenate(each) for each in parts))


def _meet(graph: Graph, first: Ids, second: Ids) -> Meet | None:
    """The parts into which pairs of nodes join them; None when they say nothing, or what the nodes say themselves."""
    left, right = distinct(first, second)
    nodes, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    source, target = place[: len(left)], place[len(left) :]
    links = coo_array((np.ones(len(left), dtype=np.int8), (source, target)), shape=(len(nodes),) * 2)
    count, parts = connected_components(links, directed=False)
    blocks = count_distinct(graph.block[nodes])
    if not blocks < count < min(count_distinct(left), count_distinct(right)):
        return None
    return Meet(nodes, parts.astype(np.int64))


def _reached(color: int, colors: Ids, rank: Ids, links: Mapping[int, Links]) -> dict[int, Ids]:
    """Per colour that links lead to from another one, the node of it that each node of that one is led to."""
    found = {color: np.flatnonzero(colors == color)}
    pending = [color]
    while pending:
        through = pending.pop()
        if through not in links:
            continue
        for onward, near in links[through].near.items():
            if onward not in found:
                found[onward] = near[rank[found[through]]]
                pending.append(onward)
    return found
