"""Which combinations of slots answer to nothing: null vectors, part by part of the matrix algebra.

Permutations are symmetries, so that the generators are a representation of the symmetric group. By Schur's lemma one
element of each isotypic part stands for all of it, and only a coefficient for each slot is unknown:

- skew elements with zero row sums: turns that fix the ones vector;
- symmetric ones with zero diagonal and zero row sums: with the former, every invertible map.

Groups of two and three units have fewer parts: all skew, and all symmetric, elements are asked about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.symmetry.continuous.responses import Responses

MOST_ROWS, MOST_BLOCKS = 24, 8
PATIENCE = 6
"""Draws that reach nothing new, after which what is left is given up."""

Array = NDArray[np.float64]


@dataclass
class Answers:
    """The equations of one group that several draws gave, by part: (rows, slots)."""

    skew: list[Array] = field(default_factory=list)
    mixing: list[Array] = field(default_factory=list)
    largest: list[Array] = field(default_factory=list)

    def add(self, response: Array, random: np.random.Generator) -> None:
        """Take in one draw, (slots, blocks, units, units)."""
        self.largest.append(np.abs(response).reshape(len(response), -1).max(1))
        for block in range(min(response.shape[1], MOST_BLOCKS)):
            products = response[:, block]
            self.skew.append(_skew_rows(products - products.transpose(0, 2, 1), random))
            self.mixing.append(_mixing_rows(products + products.transpose(0, 2, 1), random))

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Which slots have any part in the output: where not, nothing is known of them."""
        return np.asarray(np.stack(self.largest).max(0) > 0.0)

    @property
    def may_reach_more(self) -> bool:
        """Tell whether further draws may reach more.

        Some slots, as of experts, have no part in the output yet, and a late draw reached new ones.
        """
        known = (np.cumsum(np.stack(self.largest) > 0.0, axis=0) > 0).sum(1)
        return bool(known[-1] < self.largest[0].size and (known == known[-1]).sum() <= PATIENCE)

    def may_turn(self, rounding: float) -> bool:
        """Whether any turn solves the equations so far: more of them only take solutions away."""
        return len(null_vectors(np.concatenate(self.skew), rounding)) > 0

    def turning(self, rounding: float) -> list[NDArray[np.int64]]:
        """The sets of slots that turn together, as vectors of zeros and ones."""
        return _whole(null_vectors(np.concatenate(self.skew), rounding))

    def mixed(self, rounding: float) -> list[NDArray[np.int64]]:
        """The sets of slots that any map mixes, with -1 for its inverse transpose."""
        return _whole(null_vectors(np.concatenate(self.mixing), rounding))

    def silent_to_turns(self, rounding: float) -> NDArray[np.bool_]:
        """Which slots answer to no turn, because what they add cancels."""
        return _silent(np.concatenate(self.skew), rounding)

    def silent_to_mixing(self, rounding: float) -> NDArray[np.bool_]:
        """Which slots answer to no mixing."""
        return _silent(np.concatenate(self.mixing), rounding)


def draws_needed(slots: int, blocks: int, size: int) -> int:
    """How many draws give enough equations for the coefficients of so many slots."""
    independent = 1 if size < 4 else min(MOST_ROWS, size * (size - 3) // 2)
    return max(2, int(np.ceil(1.5 * slots / (independent * min(blocks, MOST_BLOCKS)))) + (size < 6))


def add_draw(answers: dict[str, Answers], drawn: Responses, random: np.random.Generator) -> None:
    """Take in one draw of every group."""
    for group, response in drawn.items():
        answers.setdefault(group, Answers()).add(response, random)


def _skew_rows(skew: Array, random: np.random.Generator) -> Array:
    size = skew.shape[1]
    if size == 2:
        return skew[:, 0, 1][None]
    triples = (random.permutation(size)[:3] for _ in range(MOST_ROWS if size > 3 else 1))
    return np.stack([skew[:, i, j] + skew[:, j, k] + skew[:, k, i] for i, j, k in triples])


def _mixing_rows(symmetric: Array, random: np.random.Generator) -> Array:
    size = symmetric.shape[1]
    if size < 4:
        return np.stack([symmetric[:, i, j] for i, j in combinations(range(size), 2)])
    fours = (random.permutation(size)[:4] for _ in range(MOST_ROWS))
    return np.stack(
        [
            symmetric[:, i, k] - symmetric[:, i, m] - symmetric[:, j, k] + symmetric[:, j, m]
            for i, j, k, m in fours
        ]
    )


def _silent(rows: Array, rounding: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(_scaled(rows)).max(0, initial=0.0) <= rounding)


def _scaled(rows: Array) -> Array:
    return rows / np.maximum(np.abs(rows).max(1, keepdims=True), 1e-300)


def null_vectors(rows: Array, rounding: float) -> Array:
    """Rows that span the null space in reduced echelon form; columns without answers have zeros.

    >>> null_vectors(np.array([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0]]), 1e-9).tolist()
    [[1.0, 1.0, 0.0]]
    """
    rows = _scaled(rows)
    live = np.flatnonzero(np.abs(rows).max(0, initial=0.0) > rounding)
    if not len(live):
        return np.zeros((0, rows.shape[1]))
    sizes = np.linalg.norm(rows[:, live], axis=0)
    _, singular, right = np.linalg.svd(rows[:, live] / sizes, full_matrices=True)
    singular = np.concatenate([singular, np.zeros(len(right) - len(singular))])
    found = np.zeros((int((singular < rounding * singular[0]).sum()), rows.shape[1]))
    found[:, live] = right[singular < rounding * singular[0]] / sizes
    return _echelon(found)


def _echelon(vectors: Array) -> Array:
    """Reduce rows by elimination, each to a leading one."""
    vectors = vectors.copy()
    done = 0
    for column in range(vectors.shape[1]):
        if done == len(vectors):
            break
        pivot = done + int(np.abs(vectors[done:, column]).argmax())
        if abs(vectors[pivot, column]) < 1e-6 * np.abs(vectors).max():
            continue
        vectors[[done, pivot]] = vectors[[pivot, done]]
        vectors[done] /= vectors[done, column]
        for other in range(len(vectors)):
            if other != done:
                vectors[other] -= vectors[other, column] * vectors[done]
        done += 1
    return np.round(vectors, 6) + 0.0


def _whole(vectors: Array) -> list[NDArray[np.int64]]:
    """Vectors of -1, 0 and 1; others are no symmetry of a group."""
    rounded = np.round(vectors).astype(np.int64)
    kept = np.abs(vectors - rounded).max(1, initial=0.0) < 1e-3
    return [vector for vector, keep in zip(rounded, kept, strict=True) if keep and np.abs(vector).max() == 1]
