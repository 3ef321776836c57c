"""What weight matching begins with: permutations, signs and maps that are given or found before."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import torch

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.signed_activations import signed_state
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.expert_order import EXPERT_STARTS
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.permutations import (
    PermutationSpec,
    RescalingSpec,
    check_permutations,
    identity_permutations,
)
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec

MatchingStart: TypeAlias = Literal["invariants", "identity", "gates", "grams"] | Permutations | Alignment


def beginning(
    start: MatchingStart, spec: PermutationSpec, rescaling: RescalingSpec, symmetry: ContinuousSpec | None
) -> Alignment:
    """Return what a search begins with, as an alignment.

    Groups that a given alignment has no permutation of stay in order.

    Raises:
        SpecError: the start is no known name, or of another spec, or holds what the search cannot go on from.

    Example:
        >>> from sinkhorn_rebasin.permutations import Group
        >>> spec = PermutationSpec((Group("a", 3),), (), {})
        >>> beginning("identity", spec, RescalingSpec(("a",)), None).permutations["a"].tolist()
        [0, 1, 2]
    """
    if isinstance(start, str):
        if start not in ("invariants", "identity", *EXPERT_STARTS):
            raise SpecError(
                f"Expected start to be 'invariants', 'identity', 'gates', 'grams', permutations or an Alignment "
                f"but got {start!r}."
            )
        if start in EXPERT_STARTS and (symmetry is not None or not any(map(spec.children, spec.names))):
            raise SpecError(
                f"Expected experts, which hold groups of their own, and no continuous symmetries to start with the "
                f"experts' {start} but got the groups {spec.names}: start from 'invariants'."
            )
        return Alignment(identity_permutations(spec), spec)
    if isinstance(start, Alignment):
        _check_alignment(start, spec, rescaling, symmetry)
        orders = {name: order for name, order in start.permutations.items() if name not in start.maps}
        start = replace(start, permutations={**identity_permutations(spec), **orders})
    else:
        start = Alignment(dict(start), spec)
    check_permutations(spec, start.permutations)
    return start


def search_from(
    begin: Alignment, standing: Standing, generator: torch.Generator, watch: Watch | None = None
) -> CoordinateAscent:
    """Set a search up whose target has the signs of a beginning."""
    groups = standing.rescaling.shapes(standing.spec, "sign")
    signs = {name: value.double().cpu() for name, value in begin.signs.items() if name in groups}
    if signs:
        target = signed_state(standing.target, standing.spec, standing.rescaling, signs)
        standing = replace(standing, target=target)
    search = CoordinateAscent(standing, generator, watch)
    search.signs.update(signs)
    return search


def _check_alignment(
    start: Alignment, spec: PermutationSpec, rescaling: RescalingSpec, symmetry: ContinuousSpec | None
) -> None:
    """Raise where a search cannot go on from an alignment."""
    if (start.spec.groups, start.spec.slots) != (spec.groups, spec.slots):
        raise SpecError(
            "Expected an alignment of the spec that is matched, to begin with, but got one of another."
        )
    if start.maps:
        theirs = () if start.continuous is None else start.continuous.symmetries
        if symmetry is None or theirs != symmetry.symmetries:
            raise SpecError(
                "Expected to begin with an alignment of the continuous symmetries that are matched but got one of "
                "others: pass symmetry=alignment.continuous."
            )
    if start.log_scales:
        raise SpecError(
            f"Expected to begin with an alignment without scales, which matching does not choose, but got scales of "
            f"{', '.join(start.log_scales)}: rescale the target first, with rescale_state(...)."
        )
    for name in start.signs:
        theirs_of_group = () if start.rescaling is None else start.rescaling.of(name, "sign")
        if name not in rescaling.groups or theirs_of_group != rescaling.of(name, "sign"):
            raise SpecError(
                f"Expected to begin with an alignment whose signs belong to the rescalings that are matched but "
                f"those of group {name!r} do not: pass rescaling=alignment.rescaling."
            )
