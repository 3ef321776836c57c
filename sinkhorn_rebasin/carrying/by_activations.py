"""By activations: the alignment whose units behave most alike on data carries the update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sinkhorn_rebasin.carrying.along_alignment import carried_by_match, in_shape_of_new
from sinkhorn_rebasin.carrying.by_weights import signs_alone
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem
from sinkhorn_rebasin.front.canonical_pair import canonical_pair
from sinkhorn_rebasin.matching import Alignment, activation_matching
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry


@dataclass(frozen=True)
class ByActivations:
    """Carry by an alignment of the bases' activations, with maps where there are any.

    Attributes:
        symmetry: ``"full"``, or ``"permutation"`` to leave maps out.

    Example:
        >>> ByActivations().name
        'activations'
    """

    symmetry: RequestedSymmetry = "full"

    @property
    def name(self) -> str:
        """Name the way."""
        return "activations"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        batches = problem.seen(self.name)

        def matched(symmetry: RequestedSymmetry) -> tuple[Alignment, tuple[str, ...]]:
            _, base, new_base = in_shape_of_new(problem)
            wanted = symmetry if problem.same_widths else "permutation"
            first, second, continuous, notes = canonical_pair(
                new_base, base, problem.new_spec, wanted, problem.example_inputs
            )
            alignment = activation_matching(
                first,
                second,
                problem.new_spec,
                data=batches,
                rescaling=signs_alone(problem, continuous),
                generator=torch.Generator().manual_seed(problem.seed),
                batch=problem.batch,
                symmetry=continuous or None,
            )
            return alignment, notes

        return carried_by_match(problem, matched, self.symmetry)
