"""Where a fit starts: the best of several matching methods on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sinkhorn_rebasin.connectivity.path_result import PathFigure
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front.gain import simplest
from sinkhorn_rebasin.front.judge import Judge, Verdict
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.matching import Alignment, activation_matching, weight_matching
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, identity_permutations
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.maps import identity_maps

WITHOUT_DATA = ("weight_matching", "as_they_are")
"""Starts that are the same whatever the data are."""


@dataclass(frozen=True)
class BestStart:
    """Hold the start of a fit.

    Attributes:
        name: the method that found it.
        alignment: what it found.
        verdicts: how every method that was tried is judged, by its name.
    """

    name: str
    alignment: Alignment
    verdicts: Mapping[str, Verdict]

    @property
    def verdict(self) -> Verdict:
        """How the start itself is judged."""
        return self.verdicts[self.name]


def best_start(judge: Judge, methods: Mapping[str, Callable[[], Alignment]], keep: PathFigure) -> BestStart:
    """Match by every method, and return the first that none is visibly better than.

    Another replaces it only where it gains more than a standard error on held-out data.

    Args:
        judge: of the pair.
        methods: the surest first: see :func:`start_methods`.
        keep: the figure of the path that is compared.
    """
    alignments = {name: method() for name, method in methods.items()}
    verdicts = {name: judge.of_start(alignment) for name, alignment in alignments.items()}
    tried = list(alignments)
    best = tried[0]
    if len(tried) > 1:
        best = tried[simplest([judge.on_parts(alignments[name], keep) for name in tried])]
    return BestStart(best, alignments[best], verdicts)


def start_methods(
    judge: Judge,
    recipe: Recipe,
    data: list[Any],
    rescaling: RescalingSpec | None,
    continuous: ContinuousSpec,
    seed: int,
) -> dict[str, Callable[[], Alignment]]:
    """Return the methods of a recipe that can be used, by their names.

    Methods that need inputs are left out where the batches hold none. Networks that were trained on from one another
    are best left as they are: what a match gains on their weights or activations may be noise.

    Args:
        judge: of the pair.
        recipe: its ``starts``.
        data: training batches to match activations on.
        rescaling: with signs, where units may be negated.
        continuous: the groups that are turned.
        seed: of the order of groups.
    """
    networks = judge.reference, judge.target, judge.spec
    symmetry = continuous or None
    activations = partial(activation_matching, *networks, data=data, batch=judge.batch, symmetry=symmetry)
    methods: dict[str, Callable[[], Alignment]] = {
        "weight_matching": partial(
            weight_matching,
            *networks,
            rescaling=rescaling,
            symmetry=symmetry,
            generator=torch.Generator().manual_seed(seed),
        ),
        "activation_matching": activations,
        "activation_matching_uncentred": partial(activations, similarity="uncentred"),
        "as_they_are": lambda: _unmoved(judge.spec, continuous),
    }
    names: list[str] = [
        name
        for name in recipe.starts
        if not name.startswith("activation_matching") or _has_inputs(judge, data)
    ]
    return {name: methods[name] for name in names or ["weight_matching"]}


def _unmoved(spec: PermutationSpec, continuous: ContinuousSpec) -> Alignment:
    """Return the alignment that moves nothing, whatever is learned."""
    return Alignment(
        {name: order for name, order in identity_permutations(spec).items() if name not in continuous},
        spec,
        method="as_they_are",
        maps=identity_maps(continuous),
        continuous=continuous or None,
    )


def _has_inputs(judge: Judge, data: list[Any]) -> bool:
    """Tell whether inputs can be read from the batches; without a criterion they need not be there."""
    if judge.criterion is not None or not data:
        return bool(data)
    try:
        read_batch(data[0], judge.batch, network=judge.reference, labelled=False)
    except DataError:
        return False
    return True
