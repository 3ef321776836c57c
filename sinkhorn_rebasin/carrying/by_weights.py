"""By weights: the alignment that brings the two bases' weights closest carries the update. No data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sinkhorn_rebasin.carrying.along_alignment import carried_along, carried_by_match, in_shape_of_new
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem
from sinkhorn_rebasin.front.canonical_pair import canonical_pair
from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS, ContinuousSpec
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry, rescaling_beside


@dataclass(frozen=True)
class ByWeights:
    """Carry by an alignment that is given, or by one of the weights.

    Without one, the bases are matched by their weights: permutations and signs, and maps in place of permutations
    where a network has continuous symmetries. Positive scales are left alone: those that bring weights closest carry
    an update no further.

    Attributes:
        symmetry: ``"full"``, or ``"permutation"`` to leave maps out.
        restarts: orders of the groups that are tried.

    Example:
        >>> from sinkhorn_rebasin.carrying import carry
        >>> base, tuned, new = (torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh()) for _ in range(3))
        >>> carry(tuned, base, new, way=ByWeights(), example_inputs=torch.randn(4, 3)).way
        'weights'
    """

    symmetry: RequestedSymmetry = "full"
    restarts: int = 5

    @property
    def name(self) -> str:
        """Name the way."""
        return "weights"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        if problem.alignment is not None:
            return carried_along(problem, problem.alignment, problem.canonical)
        return carried_by_match(
            problem, lambda symmetry: matched_bases(problem, symmetry, self.restarts), self.symmetry
        )


def matched_bases(
    problem: CarryProblem, symmetry: RequestedSymmetry = "full", restarts: int = 5
) -> tuple[Alignment, tuple[str, ...]]:
    """Match the bases by their weights.

    Returns:
        The alignment of the base with the new base, for networks in canonical form where it holds maps, and what to
        tell of it.
    """
    _, base, new_base = in_shape_of_new(problem)
    first, second, continuous, notes = canonical_pair(
        new_base,
        base,
        problem.new_spec,
        symmetry if problem.same_widths else "permutation",
        problem.example_inputs,
    )
    alignment = weight_matching(
        first,
        second,
        problem.new_spec,
        rescaling=signs_alone(problem, continuous),
        symmetry=continuous or None,
        restarts=restarts,
        generator=torch.Generator().manual_seed(problem.seed),
    )
    return alignment, notes


def signs_alone(problem: CarryProblem, continuous: ContinuousSpec = NO_CONTINUOUS) -> RescalingSpec | None:
    """Return the signs that units may change, and no scales; None where they cannot be found."""
    if problem.example_inputs is None:
        return None
    spec: PermutationSpec = problem.new_spec
    rescaling = rescaling_beside(problem.new_base, spec, True, problem.example_inputs, continuous)
    signs = tuple(each for each in rescaling.generators if each.kind == "sign")
    return RescalingSpec(rescaling.groups, signs) if signs else None
