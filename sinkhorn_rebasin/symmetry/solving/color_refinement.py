"""Colour refinement (Weisfeiler and Leman, 1968) on a graph with several kinds of directed edges."""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, combine, factorize, mix


def refine(colors: Ids, source: Ids, target: Ids, kinds: Ids) -> Ids:
    """The coarsest colouring, finer than the given one, in which equal nodes have equal neighbourhoods.

    Colours are compared by 64-bit hashes of neighbourhoods; a collision could only merge colours that differ,
    and what is claimed in the end is verified numerically.
    """
    colors = factorize(colors)
    count = int(colors.max()) + 1 if len(colors) else 0
    while len(source):
        hashes = mix(colors)
        heard = np.zeros(len(colors), dtype=np.uint64)
        np.add.at(heard, target, combine(hashes[source], kinds * 2))
        np.add.at(heard, source, combine(hashes[target], kinds * 2 + 1))
        colors = factorize(combine(hashes, heard))
        finer = int(colors.max()) + 1
        if finer == count:
            break
        count = finer
    return colors
