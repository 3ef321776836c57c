"""Colour refinement (Weisfeiler and Leman, 1968) on a graph with several kinds of directed edges."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, combine, mix, numbered


def refine(colours: Ids, source: Ids, target: Ids, kinds: Ids) -> Ids:
    """The coarsest colouring, finer than the given one, in which equal nodes have equal neighbourhoods.

    Colours are compared by 64-bit hashes of neighbourhoods; a collision could only merge colours that differ,
    and what is claimed in the end is verified numerically.
    """
    colours = numbered(colours)
    count = int(colours.max()) + 1 if len(colours) else 0
    while len(source):
        hashes = mix(colours)
        heard = np.zeros(len(colours), dtype=np.uint64)
        np.add.at(heard, target, combine(hashes[source], kinds * 2))
        np.add.at(heard, source, combine(hashes[target], kinds * 2 + 1))
        colours = numbered(combine(hashes, heard))
        finer = int(colours.max()) + 1
        if finer == count:
            break
        count = finer
    return colours
