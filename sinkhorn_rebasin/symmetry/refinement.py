"""Colour refinement (Weisfeiler and Leman, 1968) on a graph with several kinds of directed edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.relations import Ids

Hashes = NDArray[np.uint64]


def mix(values: NDArray[np.generic]) -> Hashes:
    """Scatter integers over 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def combine(first: Hashes, second: NDArray[np.generic]) -> Hashes:
    """One hash of two, in order."""
    return mix(first * np.uint64(3) + mix(second))


def numbered(hashes: NDArray[np.generic]) -> Ids:
    """Equal hashes as equal numbers from 0 on."""
    return np.unique(hashes, return_inverse=True)[1].ravel().astype(np.int64)


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
