"""Permutations that are learned for a while, and held again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sinkhorn_rebasin.rebasin.module import SinkhornRebasin


@contextmanager
def permutations_learned(rebasin: SinkhornRebasin) -> Iterator[None]:
    """Learn the permutations beside the maps.

    They are held again afterwards.
    """
    before = rebasin.learn_permutations
    rebasin.learn_permutations = True
    rebasin.scores.requires_grad_(True)
    try:
        yield
    finally:
        rebasin.learn_permutations = before
        rebasin.scores.requires_grad_(before)
