"""Random relations between grids of units: what is solved passes the trial, with nothing left to make invalid."""

from __future__ import annotations

import numpy as np
import pytest

from sinkhorn_rebasin.symmetry.labels.labels import Factor, Labels
from sinkhorn_rebasin.symmetry.labels.numbering import Ids
from sinkhorn_rebasin.symmetry.labels.relations import Relations
from sinkhorn_rebasin.symmetry.solving.preservation import preserving_slots
from sinkhorn_rebasin.symmetry.solving.slot_tables import find_slots
from sinkhorn_rebasin.symmetry.solving.solver import solve

LENGTHS = 4  # of the common grid, along each axis two or three places


def random_relations(seed: int) -> tuple[Relations, dict[str, Labels]]:
    """Tensors with units over some axes of one grid, some of them shuffled, related where they meet on it."""
    draw, relations = np.random.default_rng(seed), Relations()
    lengths = [int(draw.integers(2, 4)) for _ in range(LENGTHS)]
    made: list[tuple[tuple[int, ...], Ids]] = []
    labels = {}
    for number in range(draw.integers(2, 7)):
        axes = tuple(sorted(draw.choice(LENGTHS, size=draw.integers(1, 4), replace=False).tolist()))
        units = relations.new_units(tuple(lengths[axis] for axis in axes))
        made.append((axes, units))
        order = draw.permutation(units.size) if draw.random() < 0.3 else np.arange(units.size)
        labels[f"t{number}"] = Labels((units.size,), (Factor((0,), units.ravel()[order]),))
    for _ in range(draw.integers(1, 8)):
        (first, left), (second, right) = (made[place] for place in draw.choice(len(made), 2))
        if first == second and draw.random() < 0.3:
            right = right[draw.permutation(len(right))]
        axes = tuple(sorted({*first, *second}))
        shape = [lengths[axis] if axis in axes else 1 for axis in range(LENGTHS)]
        one, two = (
            Factor(own, ids).over(axes, shape).ravel() for own, ids in ((first, left), (second, right))
        )
        kept = np.arange(len(one)) != (draw.integers(len(one)) if draw.random() < 0.1 else -1)
        relations.relate(one[kept], two[kept])
    if draw.random() < 0.2:
        units = made[draw.integers(len(made))][1].ravel()
        relations.relate(units, -1 - np.arange(units.size) % 2)
    return relations, labels


@pytest.mark.parametrize("hundred", [0, 2, 7, 24, 26])
def test_solutions_of_random_relations_preserve_them(hundred: int) -> None:
    groups = 0
    for seed in range(100 * hundred, 100 * hundred + 100):
        relations, labels = random_relations(seed)
        solution = solve(relations)
        slots = find_slots(solution, labels)
        assert preserving_slots(relations, solution, labels, slots) == slots, seed
        groups += len({slot.group for slot in slots})
    assert groups > 200
