"""Solve relations between units for groups of units that move freely."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sinkhorn_rebasin.symmetry.labels.numbering import (
    Column,
    Hashes,
    Ids,
    combine,
    counted,
    distinct,
    distinct_values,
    factorize,
    first_places,
    mix,
)
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.class_matching import contract_classes
from sinkhorn_rebasin.symmetry.solving.color_refinement import refine
from sinkhorn_rebasin.symmetry.solving.coordinates import resolved
from sinkhorn_rebasin.symmetry.solving.fibres import find_fibres, without_fibres
from sinkhorn_rebasin.symmetry.solving.graph import Graph, forest_of_matchings, without_trivial
from sinkhorn_rebasin.symmetry.solving.meets import find_meets, with_meets
from sinkhorn_rebasin.symmetry.solving.product_units import take_out_products

# When the units that the solver adds make up more than the traced ones, it gives up.
_MOST_GROWTH = 2


@dataclass
class SolvedGroup:
    """Hold ``blocks`` times ``size`` units that may be permuted.

    The blocks are the units of the group ``parent``. Without a parent (-1) there is one block.
    """

    size: int
    blocks: int
    parent: int
    valid: bool = True


@dataclass
class Solution:
    """Say for every traced unit where it belongs.

    Attributes:
        groups: the groups, each behind its parent.
        group: the group of every unit or -1, (units,).
        unit: the number of every unit in its group, ``block * size + i``, (units,).
        role: the part of every unit inside the unit of its group, (units,).
        coordinates: other units that a unit is a tuple of, filled up with -1, (units, most coordinates).
        node_role: the role of a coordinate, for all units that were merged into it, (units,).

    Note:
        A tuple is, say, one dimension of one head, where all heads share a permutation of dimensions. A tuple has no
        group of its own, and a unit with a group has no coordinates.
    """

    groups: list[SolvedGroup]
    group: Ids
    unit: Ids
    role: Hashes
    coordinates: Ids
    node_role: Hashes


@dataclass
class _Solver:
    """Peel the graph level by level."""

    relations: Relations
    representative: Ids
    role: Hashes
    node_role: Hashes
    group: Ids
    unit: Ids
    groups: list[SolvedGroup] = field(default_factory=list)
    products: list[tuple[Ids, Ids]] = field(default_factory=list)
    # Of each block, the group that it belongs to and its number in it, (blocks, 2).
    owners: Ids = field(default_factory=lambda: np.array([[-1, 0]], dtype=np.int64))

    def level(self, graph: Graph) -> Graph:
        """Solve one level; return what lies inside its blocks."""
        size_before = (len(graph.nodes), len(graph.source))
        blocks_before = len(distinct_values(graph.block))
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
        """Repeat all simplifications until none changes the graph."""
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
        """Settle nodes of unique color."""
        cell = factorize(graph.block, graph.color)
        unique = np.bincount(cell)[cell] == 1
        self._settle(graph.nodes[unique], self.owners[graph.block[unique]], graph.color[unique])
        return graph.keep(~unique)

    def _settle(self, nodes: Ids, owners: Ids, color: Ids) -> None:
        """Give nodes their group, unit and role."""
        self.group[nodes], self.unit[nodes] = owners.T
        # Colours are numbered anew at every level, where units of other groups settle.
        played = combine(mix(color), owners[:, 0] + 1)
        self.node_role[nodes] = combine(self.node_role[nodes], played)
        self._extend_role(nodes, played)

    def _extend_role(self, nodes: Ids, color: Column) -> None:
        """Extend the roles of units that nodes represent."""
        hashes = np.zeros(len(self.group), dtype=np.uint64)
        touched = np.zeros(len(self.group), dtype=bool)
        hashes[nodes], touched[nodes] = mix(color), True
        members = touched[self.representative]
        self.role[members] = combine(self.role[members], hashes[self.representative[members]])

    def _merge_matchings(self, graph: Graph) -> Graph:
        """Merge colors that are matched one to one everywhere."""
        matched, root = forest_of_matchings(graph)
        if not matched.any():
            return graph
        links = coo_array(
            (np.ones(int(matched.sum())), (graph.source[matched], graph.target[matched])),
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
        """Take out nodes that are all tuples of others."""
        color, nodes = graph.color, graph.nodes
        graph, products = take_out_products(graph)
        for product in products:
            self.products.append((nodes[product.members], nodes[product.coordinates]))
            self._extend_role(nodes[product.members], color[product.members])
        return graph

    def _with_meets(self, graph: Graph) -> Graph | None:
        """Add nodes for what others share, or return None."""
        meets = list(find_meets(graph))
        count = sum(int(meet.parts.max()) + 1 for meet in meets)
        if not meets or len(self.group) + count > _MOST_GROWTH * self.relations.count:
            return None
        return with_meets(graph, meets, self._new_units(count))

    def _without_fibres(self, graph: Graph) -> Graph | None:
        """Replace fibres by last coordinates, or return None."""
        fibres = find_fibres(graph)
        if fibres is None:
            return None
        first = self._new_units(len(fibres.block))
        coordinates = np.column_stack([graph.nodes[fibres.coordinates], first + fibres.last])
        self.products.append((graph.nodes[fibres.members], coordinates))
        self._extend_role(graph.nodes[fibres.members], graph.color[fibres.members])
        return without_fibres(graph, fibres, first)

    def _new_units(self, count: int) -> int:
        """Add units without a trace; return the first number."""
        first, none = len(self.group), np.full(count, -1, dtype=np.int64)
        self.representative = np.concatenate([self.representative, first + np.arange(count)])
        self.group, self.unit = np.concatenate([self.group, none]), np.concatenate([self.unit, none])
        self.role = np.concatenate([self.role, np.full(count, first, dtype=np.uint64)])
        self.node_role = np.concatenate([self.node_role, np.zeros(count, dtype=np.uint64)])
        return first

    def _given_up(self, graph: Graph) -> Graph:
        """Freeze entangled units and the groups that carry them."""
        for block in distinct_values(graph.block):
            group = int(self.owners[block, 0])
            while group >= 0:
                self.groups[group].valid = False
                group = self.groups[group].parent
        return graph.keep(np.zeros(len(graph.nodes), dtype=bool))

    def _split(self, graph: Graph, component: Ids, count: int) -> Graph:
        """Split the graph into components, the units of groups.

        Components of one kind in a block become a group. Components of several nodes become blocks.
        """
        kinds = np.zeros(count, dtype=np.uint64)
        np.add.at(kinds, component, mix(graph.color))
        first, sizes = first_places(component), np.bincount(component)
        parents = self.owners[graph.block[first]]
        blocks = graph.block[first]
        signature = factorize(combine(combine(kinds, sizes), parents[:, 0] + 1))
        new_block = np.empty(count, dtype=np.int64)
        for number in distinct_values(signature):
            members = np.flatnonzero(signature == number)
            self._group_of(graph, members, first[members], parents[members], blocks[members], new_block)
        leaves = sizes[component] == 1
        self._settle(graph.nodes[leaves], self.owners[new_block[component[leaves]]], graph.color[leaves])
        graph.block = new_block[component]
        return graph.keep(~leaves)

    def _group_of(
        self, graph: Graph, members: Ids, first: Ids, parents: Ids, blocks: Ids, new_block: Ids
    ) -> None:
        """Make a group of alike components, block by block."""
        order = np.lexsort((graph.nodes[first], blocks, parents[:, 1]))
        distinct, counts = counted(blocks)
        parent = int(parents[0, 0])
        size = int(counts[0])
        if size == 1:
            new_block[members] = self._new_blocks(parents)
            return
        carriers = 1 if parent < 0 else self.groups[parent].size * self.groups[parent].blocks
        valid = bool((counts == size).all()) and len(distinct) == carriers
        self.groups.append(SolvedGroup(size, len(distinct), parent, valid))
        group = np.full(len(order), len(self.groups) - 1)
        new_block[members[order]] = self._new_blocks(np.column_stack([group, np.arange(len(order))]))

    def _new_blocks(self, owners: Ids) -> Ids:
        """Number new blocks, with the units that own them."""
        first = len(self.owners)
        self.owners = np.concatenate([self.owners, owners])
        return np.arange(first, len(self.owners), dtype=np.int64)


def solve(relations: Relations) -> Solution:
    """Find groups that may be permuted freely.

    1. Classes matched one to one are contracted.
    2. Colors are refined to a fixed point.
    3. Nodes with a color of their own settle, trivial relations are dropped, matched colors are merged.
    4. Connected components of what is left are the units of groups: alike ones in one block may be permuted.
    5. Inside each component, steps 2 to 4 are repeated.

    >>> relations = Relations()
    >>> relations.relate(relations.new_units((3,)), relations.new_units((3,)))
    >>> solution = solve(relations)
    >>> [(group.size, group.blocks) for group in solution.groups], solution.unit.tolist()
    ([(3, 1)], [0, 1, 2, 0, 1, 2])
    """
    representative, edges = contract_classes(relations)
    role = mix(relations.classes())
    nodes = distinct_values(representative)
    place = np.full(relations.count, -1, dtype=np.int64)
    place[nodes] = np.arange(len(nodes))
    color = mix(relations.classes()[nodes])
    for units, values, kind in relations.marks:
        marked, value = distinct(place[representative[units]], values)
        hashes, touched = combine(mix(value), np.array([kind])), distinct_values(marked)
        if len(touched) < len(marked):
            parts, hashes = hashes, np.zeros(len(touched), dtype=np.uint64)
            np.add.at(hashes, factorize(marked), parts)
        color[touched] = combine(color[touched], hashes)
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
    coordinates = resolved(solver.products, final)[final]
    return Solution(
        solver.groups,
        solver.group[final],
        solver.unit[final],
        solver.role,
        coordinates,
        solver.node_role,
    )
