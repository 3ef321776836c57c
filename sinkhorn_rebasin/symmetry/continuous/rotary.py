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
    children = spec.children(heads.name)
    if not children:
        return []
    slots = []
    for slot in spec.slots_of(heads.name):
        if slot.tensor in spec.parameters:
            slots += [part for part in parts_of(slot) if part.layout.width > 1]
    finest = [_unmoved(spec, slot, children) for slot in slots]
    tables = [(slot, table) for slot, table in zip(slots, finest, strict=True) if table is not None]
    sizes = {table.shape[1] for _, table in tables}
    if len(tables) < 2 or len(sizes) != 1 or not 2 <= (size := sizes.pop()) <= LARGEST:
        return []
    name = f"{heads.name} rotary"
    if name in spec or any(table.shape[0] != heads.units for _, table in tables) or size % 2:
        return []
    return [replace(slot, group=name, layout=Layout.from_table(table)) for slot, table in tables]


def _unmoved(spec: PermutationSpec, slot: Slot, children: Sequence[Group]) -> NDArray[np.int64] | None:
    """Positions (heads, units, copies) of the units inside of each head, None where a group moves them."""
    table = slot.layout.table()
    covered = [
        part
        for child in children
        for other in spec.slots_of(child.name)
        if (other.tensor, other.axes) == (slot.tensor, slot.axes)
        for part in parts_of(other)
        if np.isin(part.layout.table(), table).any()
    ]
    if not covered:
        return table.reshape(-1, table.shape[2], 1)
    if len(covered) > 1 or covered[0].layout.width == 1:
        return None
    inner = covered[0].layout.table()
    grandchildren = spec.children(covered[0].group)
    moved = any(other.group in {g.name for g in grandchildren} for other in spec.slots_on(slot.tensor))
    return None if moved else inner.transpose(0, 2, 1)


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
    stretches = [products[:, :, pair, pair].sum(-1) for pair in pairs]
    found = null_vectors(np.concatenate([each.T for each in stretches]), trials.rounding)
    if len(found) != 1 or not np.allclose(np.abs(found), 1, atol=1e-3):
        return None
    layout = slots[0].layout
    parent = name.removesuffix(" rotary")
    signs = [int(sign) for sign in np.round(found[0])]
    group = Group(name, layout.size, layout.blocks, parent)
    return ContinuousSymmetry(group, "rotary", tuple(zip(slots, signs, strict=True)), pairs=pairs)


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
