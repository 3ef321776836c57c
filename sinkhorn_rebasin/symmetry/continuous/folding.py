"""Which gains a rescaling takes into their readers, and which it cannot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.symmetry.rescaling.discovery import search_rescalings
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials


def rescaling_of_gains(trials: Trials, continuous: ContinuousSpec) -> RescalingSpec:
    """Find the rescalings of groups with gains.

    Those of the groups inside them are found too.
    """
    spec = trials.spec
    turning = {symmetry.group.name for symmetry in continuous.symmetries if symmetry.gains}
    groups = [name for name in spec.names if turning & {name, *spec.ancestors(name)}]
    return search_rescalings(trials.anew(), False, groups)[0]


def with_unfoldable(
    spec: PermutationSpec,
    continuous: ContinuousSpec,
    rescaling: RescalingSpec,
    batch_norms: Collection[str] = (),
) -> ContinuousSpec:
    """The symmetries with the names of the gains that no rescaling brings to one.

    Gains of these batch norms go into the layers before them, with the statistics.
    """
    folded = {f"{name}.weight" for name in batch_norms}

    def left(symmetry: ContinuousSymmetry) -> tuple[str, ...]:
        """Name the gains that stay."""
        others = replace(symmetry, gains=tuple(name for name in symmetry.gains if name not in folded))
        return unfoldable(spec, others, rescaling)

    symmetries = (replace(each, unfoldable=left(each)) for each in continuous.symmetries)
    return replace(continuous, symmetries=tuple(symmetries))


def with_reasons_of_gains(continuous: ContinuousSpec) -> ContinuousSpec:
    """The symmetries with a reason that says which gains cannot be folded."""
    reasons = dict(continuous.reasons)
    for symmetry in continuous.symmetries:
        if symmetry.unfoldable:
            known = [reasons[symmetry.group.name]] if symmetry.group.name in reasons else []
            names = ", ".join(symmetry.unfoldable)
            told = f"no rescaling takes {names} into its readers, so that it must be one as it is"
            reasons[symmetry.group.name] = "; ".join([*known, told])
    return replace(continuous, reasons=reasons)


def unfoldable(
    spec: PermutationSpec, symmetry: ContinuousSymmetry, rescaling: RescalingSpec
) -> tuple[str, ...]:
    """The gains that rescalings cannot bring to one, all of the others being one already."""
    first = {name: names[0] for names in spec.tied for name in names}
    known = symmetry.group.name in rescaling.groups
    generators: Sequence[dict[str, int]] = [
        {slot.tensor: exponent for slot, exponent in one.exponents}
        for one in (rescaling.of(symmetry.group.name) if known else ())
    ]
    rows = np.zeros((0, len(generators)))
    left = []
    for name in symmetry.gains:
        row = [float(one.get(first.get(name, name), 0)) for one in generators]
        more = np.concatenate([rows, np.array([row]).reshape(1, len(generators))])
        if len(generators) and np.linalg.matrix_rank(more) > len(rows):
            rows = more
        else:
            left.append(name)
    return tuple(left)
