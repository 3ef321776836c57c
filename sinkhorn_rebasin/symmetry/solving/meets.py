"""Find units that others share but no tensor holds."""

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
    """Hold nodes (n,) and their parts (n,)."""

    nodes: Ids
    parts: Ids


def find_meets(graph: Graph) -> Iterator[Meet]:
    """Find the parts that nodes of two colors share.

    Take a grid with three axes, whose sums over the first axis and over the last are nodes. The parts are the lines
    with one middle place. Preserved relations preserve the parts, so the parts may be units too.

    Note:
        Parts that other nodes already tell are left out.
    """
    if not len(graph.source):
        return
    rank = ranks(graph.color)
    links = {each.color: each for each in links_of_colors(graph, free=False)}
    reached: dict[int, dict[int, Ids]] = {}
    for each in links.values():
        for first, second in combinations(each.near, 2):
            left, right = each.near[first], each.near[second]
            meet = _meet(graph, left, right)
            if meet is None:
                continue
            for color in (first, second):
                if color not in reached:
                    reached[color] = _reached(color, graph.color, rank, links)
            told = reached[first].keys() & reached[second].keys()
            both = [(reached[first][c][rank[left]], reached[second][c][rank[right]]) for c in told]
            count = int(meet.parts.max()) + 1
            if not any(np.array_equal(*parts) and count_distinct(parts[0]) == count for parts in both):
                yield meet


def with_meets(graph: Graph, meets: Sequence[Meet], first: int) -> Graph:
    """Add a node for every part.

    The node is related to the members of its part.

    New nodes are numbered from ``first`` on.
    """
    nodes, colors, blocks = [graph.nodes], [graph.color], [graph.block]
    source, target, kinds = [graph.source], [graph.target], [graph.kind]
    for number, meet in enumerate(meets, start=1):
        _, members = np.unique(meet.parts, return_index=True)
        place = sum(len(each) for each in nodes)
        nodes.append(first + place - len(graph.nodes) + np.arange(len(members)))
        colors.append(np.full(len(members), graph.color.max() + number))
        blocks.append(graph.block[meet.nodes[members]])
        source.append(meet.nodes)
        target.append(place + meet.parts)
        kinds.append(np.full(len(meet.nodes), graph.kind.max() + number))
    parts = (nodes, colors, blocks, source, target, kinds)
    return Graph(*(np.concatenate(each) for each in parts))


def _meet(graph: Graph, first: Ids, second: Ids) -> Meet | None:
    """Join pairs of nodes into parts.

    None when the parts say nothing, or no more than the nodes.
    """
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
    """Follow links from one color to others."""
    reached = {color: np.flatnonzero(colors == color)}
    pending = [color]
    while pending:
        through = pending.pop()
        if through not in links:
            continue
        for onward, near in links[through].near.items():
            if onward not in reached:
                reached[onward] = near[rank[reached[through]]]
                pending.append(onward)
    return reached
