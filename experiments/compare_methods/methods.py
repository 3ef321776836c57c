"""Every method of the table: a pair and its budget in, the target's new place out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch.nn import functional as F

from experiments.compare_methods.ours import align
from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Setting
from experiments.published import published_midpoint
from sinkhorn_rebasin import (
    Alignment,
    FisherDistance,
    activation_matching,
    diagonal_fisher,
    greedy_cosine,
    kronecker_fisher,
    ot_fusion,
    simulated_annealing,
    sinkhorn_matching,
    straight_through,
    weight_matching,
)

PUBLISHED_IMAGES, PUBLISHED_STEPS = 9000, 180
MATCHING_BATCH, CURVATURE_BATCH = 500, 100

Method: TypeAlias = Callable[[Pair, Setting], Outcome]


def naive(pair: Pair, setting: Setting) -> Outcome:
    """The target as it is."""
    return Outcome(pair.target.state_dict(), 0.0, {})


def weights(pair: Pair, setting: Setting) -> Outcome:
    """Weight matching (Ainsworth, Hayase and Srinivasa, 2023), from our own start."""
    return _timed(
        pair,
        lambda: weight_matching(pair.reference, pair.target, pair.spec, generator=pair.generator()),
    )


def weights_from_identity(pair: Pair, setting: Setting) -> Outcome:
    """Weight matching as published, from the identity."""
    return _timed(
        pair,
        lambda: weight_matching(
            pair.reference, pair.target, pair.spec, generator=pair.generator(), start="identity"
        ),
    )


def activations(similarity: Literal["correlation", "uncentred"]) -> Method:
    """Activation matching, by correlation (Li et al., 2016; Tatro et al., 2020) or uncentred (Ainsworth et al.)."""

    def method(pair: Pair, setting: Setting) -> Outcome:
        data = pair.batches(setting.budget.images, MATCHING_BATCH)
        return _timed(
            pair,
            lambda: activation_matching(
                pair.reference, pair.target, pair.spec, data=data, similarity=similarity
            ),
        )

    return method


def straight(pair: Pair, setting: Setting) -> Outcome:
    """The straight-through estimator (Ainsworth et al., 2023)."""
    data = pair.batches(setting.budget.images, setting.budget.batch_size)
    return _timed(
        pair,
        lambda: straight_through(
            pair.reference,
            pair.target,
            pair.spec,
            data=data,
            criterion=F.cross_entropy,
            epochs=setting.budget.epochs,
            generator=pair.generator(),
        ),
    )


def transport(pair: Pair, setting: Setting) -> Outcome:
    """OT fusion (Singh and Jaggi, 2020)."""
    return _timed(pair, lambda: ot_fusion(pair.reference, pair.target, pair.spec))


def greedy(pair: Pair, setting: Setting) -> Outcome:
    """Greedy cosine matching on normalised weights (Pittorino et al., 2022)."""
    return _timed(pair, lambda: greedy_cosine(pair.reference, pair.target, pair.spec))


def annealing(pair: Pair, setting: Setting) -> Outcome:
    """Simulated annealing of the midpoint loss (Entezari et al., 2022)."""
    data = pair.batches(setting.budget.annealing_images, MATCHING_BATCH)
    return _timed(
        pair,
        lambda: simulated_annealing(
            pair.reference,
            pair.target,
            pair.spec,
            data=data,
            criterion=F.cross_entropy,
            steps=setting.budget.proposals,
            generator=pair.generator(),
        ),
    )


def sinkhorn(loss: Literal["l1", "l2", "midpoint", "random_point"]) -> Method:
    """A published Sinkhorn loss (Guerrero-Peña et al., 2023), in this package by Adam and annealing alone."""

    def method(pair: Pair, setting: Setting) -> Outcome:
        budget = setting.budget
        data = pair.batches(PUBLISHED_IMAGES, budget.batch_size)
        return _timed(
            pair,
            lambda: sinkhorn_matching(
                pair.reference,
                pair.target,
                pair.spec,
                data=None if loss in ("l1", "l2") else data,
                criterion=None if loss in ("l1", "l2") else F.cross_entropy,
                loss=loss,
                steps=budget.matching_steps,
                generator=pair.generator(),
            ),
        )

    return method


def sinkhorn_in_the_metric_of_the_loss(curvature: Callable[..., Any]) -> Method:
    """The distance weighted by the reference's Fisher information, diagonal or Kronecker-factored."""

    def method(pair: Pair, setting: Setting) -> Outcome:
        def match() -> Alignment:
            data = pair.batches(setting.budget.curvature_images, CURVATURE_BATCH)
            fisher = curvature(pair.reference, data, generator=pair.generator())
            return sinkhorn_matching(
                pair.reference,
                pair.target,
                pair.spec,
                loss=FisherDistance(fisher),
                steps=setting.budget.matching_steps,
                generator=pair.generator(),
            )

        return _timed(pair, match)

    return method


def published(python: Path) -> Method:
    """The published implementation's midpoint loss with the settings of its own example, in its own environment.

    Its example also evaluates on the training images after every epoch, which changes nothing and is left out.
    """

    def method(pair: Pair, setting: Setting) -> Outcome:
        result = published_midpoint(
            python,
            pair.architecture,
            pair.reference.state_dict(),
            pair.target.state_dict(),
            pair.data.train_images[:PUBLISHED_IMAGES],
            pair.data.train_labels[:PUBLISHED_IMAGES],
            steps=PUBLISHED_STEPS,
            batch_size=setting.budget.published_batch_size,
            bfloat16=setting.budget.published_bfloat16,
            evaluate=False,
            seed=pair.seed,
            threads=torch.get_num_threads(),
        )
        return Outcome(result["rebased_state"], result["training_seconds"])

    return method


def ours(**options: bool) -> Method:
    """Sinkhorn re-basin by the recipe of `experiments.compare_methods.ours`."""
    return lambda pair, setting: align(pair, setting.recipe, **options)


METHODS = (
    *("naive", "weight matching", "weight matching, from the identity", "activation matching"),
    *(
        "activation matching, uncentred",
        "straight-through",
        "OT fusion",
        "simulated annealing",
        "greedy cosine",
    ),
    *("Sinkhorn l1", "Sinkhorn l2", "Sinkhorn Fisher", "Sinkhorn K-FAC", "Sinkhorn midpoint"),
    *("Sinkhorn random point", "published Sinkhorn", "ours, for REPAIR", "ours, permutations alone", "ours"),
)
"""Every method, in the order of the tables."""


def methods(published_python: Path | None = None) -> Mapping[str, Method]:
    """Every method by its name in the tables; the published one when its environment is known."""
    found: dict[str, Method] = {
        "naive": naive,
        "weight matching": weights,
        "weight matching, from the identity": weights_from_identity,
        "activation matching": activations("correlation"),
        "activation matching, uncentred": activations("uncentred"),
        "straight-through": straight,
        "OT fusion": transport,
        "simulated annealing": annealing,
        "greedy cosine": greedy,
        "Sinkhorn l1": sinkhorn("l1"),
        "Sinkhorn l2": sinkhorn("l2"),
        "Sinkhorn Fisher": sinkhorn_in_the_metric_of_the_loss(diagonal_fisher),
        "Sinkhorn K-FAC": sinkhorn_in_the_metric_of_the_loss(kronecker_fisher),
        "Sinkhorn midpoint": sinkhorn("midpoint"),
        "Sinkhorn random point": sinkhorn("random_point"),
        "ours, for REPAIR": ours(repaired=True),
        "ours, permutations alone": ours(),
        "ours": ours(rescale=True),
    }
    if published_python is not None:
        found["published Sinkhorn"] = published(published_python)
    return {name: found[name] for name in METHODS if name in found}


def _timed(pair: Pair, match: Callable[[], Alignment]) -> Outcome:
    _ = pair.spec  # discovered once for all methods, and not counted
    started = time.perf_counter()
    alignment = match()
    rebased = alignment.apply(pair.target)
    return Outcome(rebased, time.perf_counter() - started, alignment.permutations)
