"""From relations between units to groups of units that may be permuted freely."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin.symmetry.contraction import contract_classes
from sinkhorn_rebasin.symmetry.numbering import Hashes, Ids, combine, distinct, mix, numbered
from sinkhorn_rebasin.symmetry.pairs import find_pairs
from sinkhorn_rebasin.symmetry.refinement import refine
from sinkhorn_rebasin.symmetry.relations import Relations


@dataclass
class SolvedGroup:
    """``blocks`` x ``size`` interchangeable units; the blocks are the units of the group ``parent``, or one."""

    size: int
    blocks: int
    parent: int
    valid: bool = True


@dataclass
class Solution:
    """Group (or -1), unit number in it (block * size + i) and role inside the unit, for every traced unit.

    A unit that is a pair of two others (one dimension of one head, say, where all heads of a group share the
    permutation of their dimensions) has no group of its own but the numbers of those two in ``pair``, else -1.
    """

    groups: list[SolvedGroup]
    group: Ids
    unit: Ids
    role: Hashes
    pair: Ids


@dataclass
class _Graph:
    """What is left to solve: live nodes with colours and the block they live in, and edges inside blocks."""

    nodes: Ids
    colour: Ids
    block: Ids
    source: Ids
    target: Ids
    kind: Ids

    def keep(self, alive: NDArrayBool) -> _Graph:
        new = np.full(len(self.nodes), -1, dtype=np.int64)
        new[alive] = np.arange(int(alive.sum()))
        edges = alive[self.source] & alive[self.target]
        return _Graph(
            self.nodes[alive],
            self.colour[alive],
            self.block[alive],
            new[self.source[edges]],
            new[self.target[edges]],
            self.kind[edges],
        )


NDArrayBool = np.ndarray


@dataclass
class _Solver:
    """Peels the graph level by level: unique nodes, trivial relations, matchings, then components as units."""

    relations: Relations
    representative: Ids
    role: Hashes
    group: Ids
    unit: Ids
    pair: Ids
    groups: list[SolvedGroup] = field(default_factory=list)
    owners: list[tuple[int, int]] = field(default_factory=lambda: [(-1, 0)])

    def level(self, graph: _Graph) -> _Graph:
        """One level; what returns lives inside blocks found here."""
        size_before = (len(graph.nodes), len(graph.source))
        blocks_before = len(np.unique(graph.block))
        graph = self._simplify(graph)
        if not len(graph.nodes):
            return graph
        links = coo_array(
            (np.ones(len(graph.source)), (graph.source, graph.target)), shape=(len(graph.nodes),) * 2
        )
        count, component = connected_components(links, directed=False)
        if (len(graph.nodes), len(graph.source)) == size_before and count == blocks_before:
            self._give_up(graph)
            return graph.keep(np.zeros(len(graph.nodes), dtype=bool))
        return self._split(graph, component.astype(np.int64), count)

    def _simplify(self, graph: _Graph) -> _Graph:
        while True:
            before = (len(graph.nodes), len(graph.source))
            graph.colour = refine(graph.colour, graph.source, graph.target, graph.kind)
            graph = self._settle_unique(graph)
            graph = _drop_trivial(graph)
            graph = self._merge_matchings(graph)
            graph = self._take_out_pairs(graph)
            if (len(graph.nodes), len(graph.source)) == before:
                return graph

    def _settle_unique(self, graph: _Graph) -> _Graph:
        """Nodes of a colour of their own in their block move only with the block."""
        cell = numbered(graph.block, graph.colour)
        unique = np.bincount(cell)[cell] == 1
        owners = np.array(self.owners, dtype=np.int64)[graph.block[unique]]
        self._settle(graph.nodes[unique], owners[:, 0], owners[:, 1], graph.colour[unique])
        return graph.keep(~unique)

    def _settle(self, nodes: Ids, group: Ids, unit: Ids, colour: Ids) -> None:
        self.group[nodes], self.unit[nodes] = group, unit
        self._extend_role(nodes, colour)

    def _extend_role(self, nodes: Ids, colour: Ids) -> None:
        hashes = np.zeros(len(self.group), dtype=np.uint64)
        touched = np.zeros(len(self.group), dtype=bool)
        hashes[nodes], touched[nodes] = mix(colour), True
        members = touched[self.representative]
        self.role[members] = combine(self.role[members], hashes[self.representative[members]])

    def _merge_matchings(self, graph: _Graph) -> _Graph:
        """Colours matched one to one inside every block become one colour."""
        chosen, root = _forest_of_matchings(graph)
        if not chosen.any():
            return graph
        links = coo_array(
            (np.ones(int(chosen.sum())), (graph.source[chosen], graph.target[chosen])),
            shape=(len(graph.nodes),) * 2,
        )
        count, merged = connected_components(links, directed=False)
        self._extend_role(graph.nodes, graph.colour)
        first = np.full(count, len(graph.nodes), dtype=np.int64)
        np.minimum.at(first, merged, np.arange(len(graph.nodes)))
        new_node = np.empty(len(self.group), dtype=np.int64)
        new_node[:] = np.arange(len(self.group))
        new_node[graph.nodes] = graph.nodes[first[merged]]
        self.representative = new_node[self.representative]
        source, target, kind = distinct(merged[graph.source], merged[graph.target], graph.kind)
        colour = root[graph.colour[first]]
        return _Graph(graph.nodes[first], colour, graph.block[first], source, target, kind)

    def _take_out_pairs(self, graph: _Graph) -> _Graph:
        """Nodes that are all the pairs of two other colours of their block move as those two do."""
        found = find_pairs(graph.colour, graph.block, graph.source, graph.target, graph.kind)
        if found is None:
            return graph
        if found.couples:
            kinds = int(graph.kind.max()) + 1 + np.arange(len(found.couples))
            kind = np.repeat(kinds, [len(first) for first, _ in found.couples])
            first, second = (np.concatenate(side) for side in zip(*found.couples, strict=True))
            source, target = np.concatenate([graph.source, first]), np.concatenate([graph.target, second])
            return replace(graph, source=source, target=target, kind=np.concatenate([graph.kind, kind]))
        members = found.members
        self.pair[graph.nodes[members]] = np.stack(
            [graph.nodes[found.first], graph.nodes[found.second]], axis=1
        )
        self._extend_role(graph.nodes[members], graph.colour[members])
        alive = np.ones(len(graph.nodes), dtype=bool)
        alive[members] = False
        return graph.keep(alive)

    def _give_up(self, graph: _Graph) -> None:
        """Units entangled in a way this solver does not resolve stay, and so does what would carry them."""
        for block in np.unique(graph.block):
            group = self.owners[block][0]
            while group >= 0:
                self.groups[group].valid = False
                group = self.groups[group].parent

    def _split(self, graph: _Graph, component: Ids, count: int) -> _Graph:
        """Components of one kind in a block are the units of a group; the larger ones become blocks."""
        kinds = np.zeros(count, dtype=np.uint64)
        np.add.at(kinds, component, mix(graph.colour))
        _, first, sizes = np.unique(component, return_index=True, return_counts=True)
        parents = np.array(self.owners, dtype=np.int64)[graph.block[first]]
        blocks = graph.block[first]
        signature = numbered(combine(combine(kinds, sizes), parents[:, 0] + 1))
        new_block = np.empty(count, dtype=np.int64)
        for one in np.unique(signature):
            members = np.flatnonzero(signature == one)
            self._group_of(graph, members, first[members], parents[members], blocks[members], new_block)
        leaves = sizes[component] == 1
        owners = np.array(self.owners, dtype=np.int64)[new_block[component[leaves]]]
        self._settle(graph.nodes[leaves], owners[:, 0], owners[:, 1], graph.colour[leaves])
        graph.block = new_block[component]
        return graph.keep(~leaves)

    def _group_of(
        self, graph: _Graph, members: Ids, first: Ids, parents: Ids, blocks: Ids, new_block: Ids
    ) -> None:
        order = np.lexsort((graph.nodes[first], blocks, parents[:, 1]))
        distinct, counts = np.unique(blocks, return_counts=True)
        parent = int(parents[0, 0])
        size = int(counts[0])
        if size == 1:
            for member, owner in zip(members, parents, strict=True):
                new_block[member] = len(self.owners)
                self.owners.append((int(owner[0]), int(owner[1])))
            return
        carriers = 1 if parent < 0 else self.groups[parent].size * self.groups[parent].blocks
        valid = bool((counts == size).all()) and len(distinct) == carriers
        self.groups.append(SolvedGroup(size, len(distinct), parent, valid))
        for unit, member in enumerate(members[order]):
            new_block[member] = len(self.owners)
            self.owners.append((len(self.groups) - 1, unit))


def _drop_trivial(graph: _Graph) -> _Graph:
    """Relations between all pairs of two colours in a block, or of each node with itself, say nothing.

    Nor do those of each node of a colour with all the others.
    """
    apart = graph.source != graph.target
    source, target, kind = graph.source[apart], graph.target[apart], graph.kind[apart]
    if len(source):
        cell = numbered(graph.block, graph.colour)
        size = np.bincount(cell)[cell]
        bundle = numbered(cell[source], graph.colour[target], kind)
        pairs = size[source] * (size[target] - (cell[source] == cell[target]))
        keep = np.bincount(bundle)[bundle] != pairs
        source, target, kind = source[keep], target[keep], kind[keep]
    return _Graph(graph.nodes, graph.colour, graph.block, source, target, kind)


def _forest_of_matchings(graph: _Graph) -> tuple[NDArrayBool, Ids]:
    """Edges that match two colours one to one, enough to connect the matched colours without a cycle."""
    root = np.arange(int(graph.colour.max()) + 1 if len(graph.colour) else 0)
    chosen = np.zeros(len(graph.source), dtype=bool)
    if not len(graph.source):
        return chosen, root
    left, right = graph.colour[graph.source], graph.colour[graph.target]
    bundle = numbered(left, right, graph.kind)
    sizes = np.bincount(graph.colour)
    matching = (left != right) & (sizes[left] == sizes[right]) & (np.bincount(bundle)[bundle] == sizes[left])

    def find(colour: int) -> int:
        while root[colour] != colour:
            root[colour] = colour = int(root[root[colour]])
        return colour

    used = np.zeros(int(bundle.max()) + 1, dtype=bool)
    _, edges = np.unique(bundle[matching], return_index=True)
    for edge in np.flatnonzero(matching)[edges]:
        first, second = find(int(left[edge])), find(int(right[edge]))
        if first != second:
            root[second] = first
            used[bundle[edge]] = True
    return used[bundle] & matching, np.array([find(colour) for colour in range(len(root))], dtype=np.int64)


def solve(relations: Relations) -> Solution:
    """Groups of units whose every permutation preserves all relations and marks.

    Classes matched one to one are contracted; colours are refined to a fixed point; then, level by level,
    nodes of a colour of their own settle, relations that say nothing are dropped, matched colours are merged,
    and the connected components of what is left are the units of groups: those of one kind in one block may
    be permuted, and inside each the same is done again.
    """
    representative, edges = contract_classes(relations)
    role = mix(relations.classes())
    nodes = np.unique(representative)
    place = np.full(relations.count, -1, dtype=np.int64)
    place[nodes] = np.arange(len(nodes))
    colour = mix(relations.classes()[nodes])
    for units, values, kind in relations.marks:
        marked, value = distinct(place[representative[units]], values)
        heard = np.zeros(len(nodes), dtype=np.uint64)
        np.add.at(heard, marked, combine(mix(value), np.array([kind])))
        touched = np.unique(marked)
        colour[touched] = combine(colour[touched], heard[touched])
    source = np.concatenate([np.empty(0, dtype=np.int64), *(place[a] for a, _, _ in edges)])
    target = np.concatenate([np.empty(0, dtype=np.int64), *(place[b] for _, b, _ in edges)])
    kind_of = np.concatenate([np.empty(0, dtype=np.int64), *(np.full(len(a), k) for a, _, k in edges)])
    if len(source):
        source, target, kind_of = distinct(source, target, kind_of)
    graph = _Graph(nodes, numbered(colour), np.zeros(len(nodes), dtype=np.int64), source, target, kind_of)
    none = np.full(relations.count, -1, dtype=np.int64)
    solver = _Solver(relations, representative, role, none, none.copy(), np.stack([none, none], axis=1))
    while len(graph.nodes):
        graph = solver.level(graph)
    final = solver.representative
    pair = solver.pair[final]
    pair = np.where(pair >= 0, final[pair], -1)
    return Solution(solver.groups, solver.group[final], solver.unit[final], solver.role, pair)
