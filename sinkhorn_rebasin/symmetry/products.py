"""Units that are all the pairs of two other kinds of units, and so need no permutation of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sinkhorn_rebasin.symmetry.numbering import Ids, count_distinct, distinct, numbered


@dataclass(frozen=True)
class Pairs:
    """Nodes that are pairs, the two nodes each is the pair of, and couples of nodes that always come together."""

    members: Ids
    first: Ids
    second: Ids
    couples: list[tuple[Ids, Ids]]


def find_pairs(colour: Ids, block: Ids, source: Ids, target: Ids, kind: Ids) -> Pairs | None:
    """The colours that are all pairs of two others; None when there are none.

    Every node of such a colour is related to exactly one node of each of two other colours and to nothing else, no
    two nodes to the same two, and in every block there are as many as there are pairs. Two colours whose nodes are
    always met together are told first: they are matched, and what is left may be pairs.
    """
    if not len(source):
        return None
    couples: list[tuple[Ids, Ids]] = []
    found: dict[int, tuple[Ids, Ids, Ids]] = {}
    needed: set[int] = set()
    node = np.concatenate([source, target])
    other = np.concatenate([target, source])
    kinds = np.concatenate([2 * kind, 2 * kind + 1])
    sizes = np.bincount(colour)
    of_colour, _ = distinct(colour, block)
    per_block = sizes / np.maximum(1, np.bincount(of_colour, minlength=len(sizes)))
    for one, edges in _single_everywhere(colour, node, other, kinds, sizes):
        links: dict[int, Ids] = {}
        bundle = numbered(colour[other[edges]], kinds[edges])
        for chosen in (edges[bundle == number] for number in range(int(bundle.max()) + 1)):
            near = int(colour[other[chosen[0]]])
            neighbours = other[chosen][np.argsort(node[chosen], kind="stable")]
            if near == one or not np.array_equal(links.setdefault(near, neighbours), neighbours):
                links = {}
                break
        through = _matched_through(list(links.values()))
        if through is not None:
            couples.append(through)
        if through is not None or len(links) != 2 or one in needed or set(links) & found.keys():
            continue
        (left, first), (right, second) = links.items()
        full = per_block[left] > 1 and per_block[right] > 1
        full &= per_block[one] == per_block[left] * per_block[right]
        if full and count_distinct(first, second) == sizes[one]:
            found[one] = np.flatnonzero(colour == one), first, second
            needed |= {left, right}
    if not couples and not found:
        return None
    none = np.empty(0, dtype=np.int64)
    columns = zip(*found.values(), strict=True) if found else ((none,),) * 3
    members, first, second = (np.concatenate(column) for column in columns)
    return Pairs(members, first, second, couples)


def _single_everywhere(
    colour: Ids, node: Ids, other: Ids, kinds: Ids, sizes: Ids
) -> Iterator[tuple[int, Ids]]:
    """Colours whose every node has exactly one neighbour of each colour and kind near it, with their edges."""
    bundle = numbered(colour[node], colour[other], kinds)
    nodes_in = np.bincount(distinct(bundle, node)[0])
    single = (np.bincount(bundle)[bundle] == sizes[colour[node]]) & (nodes_in[bundle] == sizes[colour[node]])
    spoilt = np.zeros(len(sizes), dtype=bool)
    spoilt[colour[node[~single]]] = True
    order = np.argsort(colour[node], kind="stable")
    starts = np.flatnonzero(np.diff(colour[node][order], prepend=-1))
    for edges in np.split(order, starts[1:]):
        one = int(colour[node[edges[0]]])
        if not spoilt[one]:
            yield one, edges


def _matched_through(links: list[Ids]) -> tuple[Ids, Ids] | None:
    """Two colours of which each node is always met together with the same node of the other."""
    for place, first in enumerate(links):
        for second in links[place + 1 :]:
            both = distinct(first, second)
            if len(both[0]) == len(np.unique(first)) == len(np.unique(second)) < len(first):
                return both[0], both[1]
    return None
