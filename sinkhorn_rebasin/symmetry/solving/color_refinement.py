"""Refine colors on a graph with several kinds of directed edges.

Source: Weisfeiler and Leman, 1968.
"""

from __future__ import annotations

import numpy as np

from sinkhorn_rebasin.symmetry.labels.numbering import Ids, combine, factorize, mix


def refine(colors: Ids, source: Ids, target: Ids, kinds: Ids) -> Ids:
    """Refine colors until equal nodes have equal neighborhoods.

    Note:
        - Neighborhoods are compared by 64-bit hashes.
        - A collision could only merge different colors; what is claimed is verified afterwards.

    >>> kinds = np.zeros(2, dtype=np.int64)
    >>> sorted(refine(np.zeros(4, dtype=np.int64), np.array([0, 1]), np.array([1, 2]), kinds).tolist())
    [0, 1, 2, 3]
    """
    colors = factorize(colors)
    count = int(colors.max()) + 1 if len(colors) else 0
    while len(source):
        hashes = mix(colors)
        neighborhoods = np.zeros(len(colors), dtype=np.uint64)
        np.add.at(neighborhoods, target, combine(hashes[source], kinds * 2))
        np.add.at(neighborhoods, source, combine(hashes[target], kinds * 2 + 1))
        colors = factorize(combine(hashes, neighborhoods))
        finer = int(colors.max()) + 1
        if finer == count:
            break
        count = finer
    return colors
