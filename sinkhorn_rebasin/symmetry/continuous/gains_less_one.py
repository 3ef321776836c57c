"""Gains that are stored as their distance from one, as norms that multiply by 1 + w hold them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.gain_folding import fold_gains
from sinkhorn_rebasin.symmetry.continuous.folding import unfoldable
from sinkhorn_rebasin.symmetry.continuous.proof import change_of
from sinkhorn_rebasin.symmetry.rescaling.discovery import TOLERANCE, in_precision, search_rescalings
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials, shifted


def with_gains_less_one(trials: Trials, continuous: ContinuousSpec) -> ContinuousSpec:
    """Find which of the gains that cannot be folded are gains less one; these must be zero and not one.

    They are those with 1 + w in a rescaling. The symmetries are proven anew with such vectors at zero.
    """
    names = {name for symmetry in continuous.symmetries for name in symmetry.unfoldable}
    if not names:
        return continuous
    rescaling = _search_factors(trials.anew(), continuous, names)
    symmetries = tuple(_converted(trials.spec, each, rescaling) for each in continuous.symmetries)
    if symmetries == continuous.symmetries:
        return continuous
    change = change_of(trials, symmetries)
    if not change <= TOLERANCE:
        return continuous
    return replace(continuous, symmetries=symmetries, error=max(continuous.error, change))


def rescaling_of_factors(
    model: nn.Module,
    spec: PermutationSpec,
    continuous: ContinuousSpec,
    less_one: set[str],
    example_inputs: ExampleInputs,
) -> RescalingSpec:
    """Find the rescalings of the groups that have gains, where some tensors count as one more than they hold."""
    generator = torch.Generator("cpu").manual_seed(0)
    return in_precision(
        lambda trials: _search_factors(trials, continuous, less_one),
        model,
        spec,
        example_inputs,
        TOLERANCE,
        generator,
    )


def _search_factors(trials: Trials, continuous: ContinuousSpec, less_one: set[str]) -> RescalingSpec:
    groups = [each.group.name for each in continuous.symmetries if each.gains or each.less_one]
    trials.less_one = frozenset(less_one)
    return search_rescalings(trials, False, groups)[0]


def as_gains(continuous: ContinuousSpec) -> ContinuousSpec:
    """The symmetries with gains less one among the gains."""
    return replace(
        continuous,
        symmetries=tuple(
            replace(each, gains=(*each.gains, *each.less_one)) for each in continuous.symmetries
        ),
    )


def fold_factors(
    state: State, spec: PermutationSpec, continuous: ContinuousSpec, rescaling: RescalingSpec
) -> State:
    """Bring gains to one and gains less one to zero: see :func:`fold_gains`, which raises what this raises."""
    less_one = {name for symmetry in continuous.symmetries for name in symmetry.less_one}
    folded = fold_gains(shifted(state, less_one, 1.0), spec, as_gains(continuous), rescaling)
    return shifted(folded, less_one, -1.0)


def _converted(
    spec: PermutationSpec, symmetry: ContinuousSymmetry, rescaling: RescalingSpec
) -> ContinuousSymmetry:
    """The symmetry with those of its unfoldable gains at zero that are gains less one."""
    if not symmetry.unfoldable:
        return symmetry
    left = unfoldable(spec, symmetry, rescaling)
    found = tuple(name for name in symmetry.unfoldable if name not in left)
    return replace(
        symmetry,
        gains=tuple(name for name in symmetry.gains if name not in found),
        unfoldable=tuple(name for name in symmetry.unfoldable if name not in found),
        shifts=(*symmetry.shifts, *found),
        less_one=found,
    )
