"""Units that are all the pairs of two other kinds of units, and so need no permutation of their own."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.numbering import Ids


def find_pairs(colour: Ids, block: Ids, source: Ids, target: Ids, kind: Ids) -> tuple[Ids, Ids, Ids] | None:
    """The nodes of one colour that are all pairs, and the two nodes each is the pair of; None when there are none.

    Every node of the colour is related to exactly one node of each of two other colours and to nothing else, no
    two nodes to the same two, and in every block there are as many as there are pairs.
    """
    if not len(source):
        return None
    node = np.concatenate([source, target])
    other = np.concatenate([target, source])
    kinds = np.concatenate([2 * kind, 2 * kind + 1])
    sizes = np.bincount(colour)
    per_block = sizes / np.array([max(1, len(np.unique(block[colour == c]))) for c in range(len(sizes))])
    for one in np.unique(colour[node]):
        mine = colour[node] == one
        links: dict[int, Ids] = {}
        for near, how in np.unique(np.stack([colour[other[mine]], kinds[mine]]), axis=1).T:
            chosen = mine & (colour[other] == near) & (kinds == how)
            members, neighbours = node[chosen], other[chosen]
            order = np.argsort(members, kind="stable")
            members, neighbours = members[order], neighbours[order]
            single = len(members) == sizes[one] and len(np.unique(members)) == len(members)
            if (
                not single
                or near == one
                or not np.array_equal(links.setdefault(int(near), neighbours), neighbours)
            ):
                links = {}
                break
        through = _matched_through(list(links.values()))
        if through is not None:
            return np.empty(0, dtype=np.int64), *through
        if len(links) != 2:
            continue
        (left, first), (right, second) = links.items()
        full = per_block[left] > 1 and per_block[right] > 1
        full &= per_block[one] == per_block[left] * per_block[right]
        if full and np.unique(np.stack([first, second]), axis=1).shape[1] == sizes[one]:
            return np.flatnonzero(colour == one), first, second
    return None


def _matched_through(links: list[Ids]) -> tuple[Ids, Ids] | None:
    """Two colours of which each node is always met together with the same node of the other."""
    for place, first in enumerate(links):
        for second in links[place + 1 :]:
            both = np.unique(np.stack([first, second]), axis=1)
            if both.shape[1] == len(np.unique(first)) == len(np.unique(second)) < len(first):
                return both[0], both[1]
    return None
