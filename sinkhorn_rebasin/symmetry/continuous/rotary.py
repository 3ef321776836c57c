"""Pairs of units inside of heads that may turn, where positions turn them already and nothing permutes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSymmetry
from sinkhorn_rebasin.permutations.slots import parts_of
from sinkhorn_rebasin.symmetry.continuous.null_vectors import null_vectors
from sinkhorn_rebasin.symmetry.continuous.proof import first_change
from sinkhorn_rebasin.symmetry.continuous.responses import responses
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

LARGEST, DRAWS = 512, 4


def rotary_symmetries(trials: Trials) -> tuple[list[ContinuousSymmetry], dict[str, str]]:
    r"""Find the pairs of units inside of each head that turn and stretch together, and why there are none.

    Turning units i and j alone, in all slots of a head, leaves the output as it is only if

    .. math:: \sum_k (G_k)_{ij} - (G_k)_{ji} = 0

    at all draws. One backward pass a draw serves all pairs. Signs of the stretch solve the equations of its
    diagonal. What is found is proven by a random turn and stretch of each pair.
    """
    candidates = {}
    for group in trials.spec.groups:
        if inner := inner_slots(trials.spec, group):
            candidates[inner[0].group] = inner
    draws: dict[str, list[NDArray[np.float64]]] = {name: [] for name in candidates}
    for _ in range(DRAWS if candidates else 0):
        state = trials.weights()
        drawn = responses(
            trials.network, state, candidates, trials.example_inputs, trials.generator, most_units=LARGEST
        )
        for name, response in drawn.items():
            draws[name].append(response)
    kept, reasons = [], {}
    for name, slots in candidates.items():
        symmetry = _claim(trials, name, slots, draws[name]) if draws[name] else None
        if symmetry is not None and first_change(trials, [symmetry]) <= trials.tolerance:
            kept.append(symmetry)
        else:
            reasons[name] = "no pair of units inside of its heads turns alone: they stay"
    return kept, reasons


def inner_slots(spec: PermutationSpec, heads: Group) -> list[Slot]:
    """The positions inside of each head that no group moves, as slots of a group of their own.

    Query heads that share a key head lie side by side in one unit. Nothing for groups without others inside.
    """
    inside = [group for group in spec.groups if heads.name in spec.ancestors(group.name)]
    if not inside:
        return []
    slots = []
    for slot in spec.slots_of(heads.name):
        if slot.tensor in spec.parameters:
            slots += [part for part in parts_of(slot) if part.layout.width > 1]
    finest = [_unmoved(spec, slot, inside) for slot in slots]
    tables = [(slot, table) for slot, table in zip(slots, finest, strict=True) if table is not None]
    sizes = {table.shape[1] for _, table in tables}
    if len(tables) < 2 or len(sizes) != 1 or not 2 <= sizes.pop() <= LARGEST:
        return []
    name = f"{heads.name} rotary"
    if name in spec or any(table.shape[0] != heads.units for _, table in tables):
        return []
    return [replace(slot, group=name, layout=Layout.from_table(table)) for slot, table in tables]


def _unmoved(spec: PermutationSpec, slot: Slot, inside: Sequence[Group]) -> NDArray[np.int64] | None:
    """Positions (heads, units, copies) of the units inside of each head that nothing moves.

    None where there are none, or where they are others in each head.
    """
    table = slot.layout.table()
    covered = [
        part.layout.table()
        for child in inside
        for other in spec.slots_of(child.name)
        if (other.tensor, other.axes) == (slot.tensor, slot.axes)
        for part in parts_of(other)
        if np.isin(part.layout.table(), table).any()
    ]
    wide = [units for units in covered if units.shape[2] > 1]
    single = [units.ravel() for units in covered if units.shape[2] == 1]
    if not wide:
        positions = table.reshape(-1, table.shape[2], 1)
    elif len(wide) == 1 and wide[0].size == table.size:
        positions = wide[0].transpose(0, 2, 1)
    else:
        return None
    moved = np.isin(positions, np.concatenate(single)) if single else np.zeros(positions.shape, dtype=bool)
    staying = ~moved.any((0, 2))
    if not staying.any() or not moved[:, ~staying].all():
        return None
    return positions[:, staying]


def _claim(
    trials: Trials, name: str, slots: Sequence[Slot], draws: Sequence[NDArray[np.float64]]
) -> ContinuousSymmetry | None:
    products = np.concatenate(draws, axis=1)  # (slots, draws * blocks, units, units)
    total = products.sum(0)
    answers = np.abs(total - total.transpose(0, 2, 1)).max(0)
    usual = np.abs(products).sum(0).max(0)
    pairs = matched(answers <= trials.rounding * (usual + usual.T))
    if not pairs:
        return None
    signs = _signs_of_stretch(products, pairs, trials.rounding)
    if signs is None:
        return None
    layout = slots[0].layout
    parent = name.removesuffix(" rotary")
    group = Group(name, layout.size, layout.blocks, parent)
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
