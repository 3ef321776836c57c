"""From relations between units to groups of units that may be permuted freely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin.symmetry.labels.numbering import Column, Hashes, Ids, combine, distinct, factorize, mix
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.class_matching import contract_classes
from sinkhorn_rebasin.symmetry.solving.color_refinement import refine
from sinkhorn_rebasin.symmetry.solving.fibres import find_fibres, without_fibres
from sinkhorn_rebasin.symmetry.solving.graph import Graph, forest_of_matchings, without_trivial
from sinkhorn_rebasin.symmetry.solving.meets import find_meets, with_meets
from sinkhorn_rebasin.symmetry.solving.product_units import take_out_products

# When the units that the solver adds make up more than the traced ones, it gives up.
_MOST_GROWTH = 2


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

    A unit that is a tuple of others (one dimension of one head, say, where all heads of a group share the permutation
    of their dimensions) has no group of its own but the numbers of those in its row of ``coordinates``. Rows are
    filled up with -1, which is all there is in the rows of other units. ``node_role`` is the role of a coordinate: of
    all units that were merged into it, any of which may stand for it.
    """

    groups: list[SolvedGroup]
    group: Ids
    unit: Ids
    role: Hashes
    coordinates: Ids
    node_role: Hashes


@dataclass
class _Solver:
    """Peels the graph level by level: unique nodes, trivial relations, matchings, then components as units."""

    relations: Relations
    representative: Ids
    role: Hashes
    node_role: Hashes
    group: Ids
    unit: Ids
    groups: list[SolvedGroup] = field(default_factory=list)
    products: list[tuple[Ids, Ids]] = field(default_factory=list)
    owners: list[tuple[int, int]] = field(default_factory=lambda: [(-1, 0)])

    def level(self, graph: Graph) -> Graph:
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
            return self._with_meets(graph) or self._without_fibres(graph) or self._given_up(graph)
        return self._split(graph, component.astype(np.int64), count)

    def _simplify(self, graph: Graph) -> Graph:
        while True:
            before = (len(graph.nodes), len(graph.source))
            graph.color = refine(graph.color, graph.source, graph.target, graph.kind)
            graph = self._settle_unique(graph)
            graph = without_trivial(graph)
            graph = self._merge_matchings(graph)
            graph = self._take_out_products(graph)
            if (len(graph.nodes), len(graph.source)) == before:
                return graph

    def _settle_unique(self, graph: Graph) -> Graph:
        """Nodes of a colour of their own in their block move only with the block."""
        cell = factorize(graph.block, graph.color)
        unique = np.bincount(cell)[cell] == 1
        owners = np.array(self.owners, dtype=np.int64)[graph.block[unique]]
        self._settle(graph.nodes[unique], owners[:, 0], owners[:, 1], graph.color[unique])
        return graph.keep(~unique)

    def _settle(self, nodes: Ids, group: Ids, unit: Ids, color: Ids) -> None:
        self.group[nodes], self.unit[nodes] = group, unit
        # Colours are numbered anew at every level, where units of other groups settle.
        played = combine(mix(color), group + 1)
        self.node_role[nodes] = combine(self.node_role[nodes], played)
        self._extend_role(nodes, played)

    def _extend_role(self, nodes: Ids, color: Column) -> None:
        hashes = np.zeros(len(self.group), dtype=np.uint64)
        touched = np.zeros(len(self.group), dtype=bool)
        hashes[nodes], touched[nodes] = mix(color), True
        members = touched[self.representative]
        self.role[members] = combine(self.role[members], hashes[self.representative[members]])

    def _merge_matchings(self, graph: Graph) -> Graph:
        """Colours matched one to one inside every block become one colour."""
        chosen, root = forest_of_matchings(graph)
        if not chosen.any():
            return graph
        links = coo_array(
            (np.ones(int(chosen.sum())), (graph.source[chosen], graph.target[chosen])),
            shape=(len(graph.nodes),) * 2,
        )
        count, merged = connected_components(links, directed=False)
        self._extend_role(graph.nodes, graph.color)
        together = np.zeros(count, dtype=np.uint64)
        np.add.at(together, merged, combine(self.node_role[graph.nodes], graph.color))
        first = np.full(count, len(graph.nodes), dtype=np.int64)
        np.minimum.at(first, merged, np.arange(len(graph.nodes)))
        new_node = np.empty(len(self.group), dtype=np.int64)
        new_node[:] = np.arange(len(self.group))
        new_node[graph.nodes] = graph.nodes[first[merged]]
        self.representative = new_node[self.representative]
        source, target, kind = distinct(merged[graph.source], merged[graph.target], graph.kind)
        self.node_role[graph.nodes[first]] = together
        color = root[graph.color[first]]
        return Graph(graph.nodes[first], color, graph.block[first], source, target, kind)

    def _take_out_products(self, graph: Graph) -> Graph:
        """Nodes that are all the tuples of others in their block move as those do."""
        color, nodes = graph.color, graph.nodes
        graph, found = take_out_products(graph)
        for product in found:
            self.products.append((nodes[product.members], nodes[product.coordinates]))
            self._extend_role(nodes[product.members], color[product.members])
        return graph

    def _with_meets(self, graph: Graph) -> Graph | None:
        """The graph with nodes for what others share; None when they share nothing more."""
        meets = list(find_meets(graph))
        count = sum(int(meet.parts.max()) + 1 for meet in meets)
        if not meets or len(self.group) + count > _MOST_GROWTH * self.relations.count:
            return None
        return with_meets(graph, meets, self._new_units(count))

    def _without_fibres(self, graph: Graph) -> Graph | None:
        """The graph without nodes that lie in tuples, but with their places there; None where there are none."""
        found = find_fibres(graph)
        if found is None:
            return None
        first = self._new_units(len(found.block))
        coordinates = np.column_stack([graph.nodes[found.coordinates], first + found.last])
        self.products.append((graph.nodes[found.members], coordinates))
        self._extend_role(graph.nodes[found.members], graph.color[found.members])
        return without_fibres(graph, found, first)

    def _new_units(self, count: int) -> int:
        """Room for units that nothing in the trace stands for; the number of the first."""
        first, none = len(self.group), np.full(count, -1, dtype=np.int64)
        self.representative = np.concatenate([self.representative, first + np.arange(count)])
        self.group, self.unit = np.concatenate([self.group, none]), np.concatenate([self.unit, none])
        self.role = np.concatenate([self.role, np.full(count, first, dtype=np.uint64)])
        self.node_role = np.concatenate([self.node_role, np.zeros(count, dtype=np.uint64)])
        return first

    def _given_up(self, graph: Graph) -> Graph:
        """Units entangled in a way this solver does not resolve stay, and so does what would carry them."""
        for block in np.unique(graph.block):
            group = self.owners[block][0]
            while group >= 0:
                self.groups[group].valid = False
                group = self.groups[group].parent
        return graph.keep(np.zeros(len(graph.nodes), dtype=bool))

    def _split(self, graph: Graph, component: Ids, count: int) -> Graph:
        """Components of one kind in a block are the units of a group; the larger ones become blocks."""
        kinds = np.zeros(count, dtype=np.uint64)
        np.add.at(kinds, component, mix(graph.color))
        _, first, sizes = np.unique(component, return_index=True, return_counts=True)
        parents = np.array(self.owners, dtype=np.int64)[graph.block[first]]
        blocks = graph.block[first]
        signature = factorize(combine(combine(kinds, sizes), parents[:, 0] + 1))
        new_block = np.empty(count, dtype=np.int64)
        for one in np.unique(signature):
            members = np.flatnonzero(signature == one)
            self._group_of(graph, members, first[members], parents[members], blocks[members], new_block)
        leaves = sizes[component] == 1
        owners = np.array(self.owners, dtype=np.int64)[new_block[component[leaves]]]
        self._settle(graph.nodes[leaves], owners[:, 0], owners[:, 1], graph.color[leaves])
        graph.block = new_block[component]
        return graph.keep(~leaves)

    def _group_of(
        self, graph: Graph, members: Ids, first: Ids, parents: Ids, blocks: Ids, new_block: Ids
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
    color = mix(relations.classes()[nodes])
    for units, values, kind in relations.marks:
        marked, value = distinct(place[representative[units]], values)
        heard = np.zeros(len(nodes), dtype=np.uint64)
        np.add.at(heard, marked, combine(mix(value), np.array([kind])))
        touched = np.unique(marked)
        color[touched] = combine(color[touched], heard[touched])
    source = np.concatenate([np.empty(0, dtype=np.int64), *(place[a] for a, _, _ in edges)])
    target = np.concatenate([np.empty(0, dtype=np.int64), *(place[b] for _, b, _ in edges)])
    kind_of = np.concatenate([np.empty(0, dtype=np.int64), *(np.full(len(a), k) for a, _, k in edges)])
    if len(source):
        source, target, kind_of = distinct(source, target, kind_of)
    graph = Graph(nodes, factorize(color), np.zeros(len(nodes), dtype=np.int64), source, target, kind_of)
    none = np.full(relations.count, -1, dtype=np.int64)
    solver = _Solver(relations, representative, role, np.zeros_like(role), none, none.copy())
    while len(graph.nodes):
        graph = solver.level(graph)
    final = solver.representative
    coordinates = _resolved(solver.products, final)[final]
    return Solution(
        solver.groups,
        solver.group[final],
        solver.unit[final],
        solver.role,
        coordinates,
        solver.node_role,
    )


def _resolved(products: Sequence[tuple[Ids, Ids]], final: Ids) -> Ids:
    """Coordinates of every unit, (units, most coordinates), none of which has coordinates of its own; -1 elsewhere.

    >>> inner, outer = (np.array([2]), np.array([[0, 1]])), (np.array([3]), np.array([[2, 1]]))
    >>> _resolved([outer, inner], np.arange(4)).tolist()
    [[-1, -1, -1], [-1, -1, -1], [0, 1, -1], [0, 1, 1]]
    """
    rows: Ids = np.full((len(final), 0), -1, dtype=np.int64)
    # What is taken out later may be a coordinate of what was taken out before, and never the other way round.
    for members, coordinates in reversed(products):
        wide = np.concatenate([_expanded(rows, one) for one in final[coordinates].T], axis=1)
        wide = wide[:, (wide >= 0).any(axis=0)]
        more = max(0, wide.shape[1] - rows.shape[1])
        rows = np.pad(rows, ((0, 0), (0, more)), constant_values=-1)
        rows[members, : wide.shape[1]] = wide
    return rows


def _expanded(rows: Ids, units: Ids) -> Ids:
    """The coordinates of each unit, or the unit itself where it has none."""
    found = rows[units] if rows.shape[1] else np.full((len(units), 1), -1, dtype=np.int64)
    found[:, 0] = np.where(found[:, 0] < 0, units, found[:, 0])
    return found
