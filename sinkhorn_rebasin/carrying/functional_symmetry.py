"""Functional, restricted to the symmetry group: units are matched one to one, each with its gain."""

from __future__ import annotations

from dataclasses import dataclass

from sinkhorn_rebasin.carrying.functional import functional_update, rows_of_bases
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem


@dataclass(frozen=True)
class FunctionalSymmetry:
    r"""Carry by permutations with gains, fitted to activations.

    .. math:: M = \mathrm{diag}(g)\, P

    before and after every layer, with P the matching of units by correlation and g the slopes. Few data are enough
    for it, since each map has one number a unit.

    Example:
        >>> FunctionalSymmetry().name
        'functional in the symmetry group'
    """

    @property
    def name(self) -> str:
        """Name the way."""
        return "functional in the symmetry group"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        old, new = rows_of_bases(problem, self.name)
        return functional_update(problem, old, new, "permutation", 0.0)
