"""Pairs of units inside of heads that may turn, where positions turn them already and nothing permutes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations import Group, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.symmetry.continuous.inner_positions import LARGEST, inner_groups
from sinkhorn_rebasin.symmetry.continuous.null_vectors import null_vectors
from sinkhorn_rebasin.symmetry.continuous.proof import first_change
from sinkhorn_rebasin.symmetry.continuous.responses import responses
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

DRAWS = 4
_STAY = "no pair of units inside of its heads turns alone: they stay"
_ALONE = "what nothing moves inside of its heads has no counterpart of as many units: it stays"

Products: TypeAlias = NDArray[np.float64]
Asked: TypeAlias = tuple[Group, list[Slot]]


def rotary_symmetries(trials: Trials) -> tuple[list[ContinuousSymmetry], dict[str, str]]:
    r"""Find the pairs of units inside of each head that turn and stretch together, and why there are none.

    Turning units i and j alone, in all slots of a head, leaves the output as it is only if

    .. math:: \sum_k (G_k)_{ij} - (G_k)_{ji} = 0

    at all draws. One backward pass a draw serves all pairs. Signs of the stretch solve the equations of its
    diagonal. What is found is proven by a random turn and stretch of each pair.
    """
    asked, reasons = [], {}
    for heads in trials.spec.groups:
        name = f"{heads.name} rotary"
        ways = None if name in trials.spec else inner_groups(trials.spec, heads)
        if ways is not None:
            reasons[name] = _STAY if ways else _ALONE
            asked += ways
    kept = []
    for group, slots, draws in _drawn(trials, asked):
        symmetry = _claim(group, slots, draws, trials.rounding) if group.name in reasons else None
        if symmetry is not None and first_change(trials, [symmetry]) <= trials.tolerance:
            kept.append(symmetry)
            del reasons[group.name]
    return kept, reasons


def _drawn(trials: Trials, asked: Sequence[Asked]) -> Iterator[tuple[Group, Sequence[Slot], Products]]:
    """Draw products of gradients and weights.

    They are (slots, draws * heads, units, units), and any pair may turn.
    """
    draws: dict[str, list[Products]] = {str(number): [] for number in range(len(asked))}
    left = {str(number): slots for number, (_, slots) in enumerate(asked)}
    for _ in range(DRAWS):
        if left:
            drawn = responses(
                *(trials.network, trials.weights(), left, trials.example_inputs, trials.generator),
                most_units=LARGEST,
            )
            for number, response in drawn.items():
                draws[number].append(response)
            left = {
                number: slots
                for number, slots in left.items()
                if draws[number] and _turning(draws[number], trials.rounding).any()
            }
    for number in left:
        group, slots = asked[int(number)]
        yield group, slots, np.concatenate(draws[number], axis=1)


def _turning(draws: Sequence[Products], rounding: float) -> NDArray[np.bool_]:
    """Which pairs of units turn alone at all draws."""
    products = np.concatenate(draws, axis=1)
    total = products.sum(0)
    answers = np.abs(total - total.transpose(0, 2, 1)).max(0)
    usual = np.abs(products).sum(0).max(0)
    alone = np.asarray(answers <= rounding * (usual + usual.T))
    np.fill_diagonal(alone, False)
    return alone


def _claim(
    group: Group, slots: Sequence[Slot], products: Products, rounding: float
) -> ContinuousSymmetry | None:
    pairs = matched(_turning([products], rounding))
    signs = _signs_of_stretch(products, pairs, rounding) if pairs else None
    if signs is None:
        return None
    return ContinuousSymmetry(group, "rotary", tuple(zip(slots, signs, strict=True)), pairs=pairs)


def _signs_of_stretch(
    products: NDArray[np.float64], pairs: Sequence[tuple[int, int]], rounding: float
) -> list[int] | None:
    """How each slot scales with its pairs: all by +1, as turns do, where no stretch leaves the output as it is."""
    stretches = [products[:, :, pair, pair].sum(-1) for pair in pairs]
    found = null_vectors(np.concatenate([each.T for each in stretches]), rounding)
    if not len(found):
        return [1] * len(products)
    if len(found) != 1 or not np.allclose(np.abs(found), 1, atol=1e-3):
        return None
    return [int(sign) for sign in np.round(found[0])]


def matched(turns: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Pairs of units of which each is in one: all that turn alone, or the first of them where some share units.

    >>> matched(np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=bool))
    ((0, 2), (1, 3))
    """
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for one, other in zip(*np.nonzero(np.triu(turns, 1)), strict=True):
        if not used & {int(one), int(other)}:
            used |= {int(one), int(other)}
            pairs.append((int(one), int(other)))
    return tuple(pairs)
