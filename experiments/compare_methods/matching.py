"""Methods that match units: a pair and its budget in, the target's new place out."""

from __future__ import annotations

from typing import Literal

from torch.nn import functional as F

from experiments.compare_methods.pair import Align, Outcome, Pair
from experiments.compare_methods.setting import Setting
from sinkhorn_rebasin import (
    activation_matching,
    greedy_cosine,
    ot_fusion,
    simulated_annealing,
    straight_through,
    weight_matching,
)

MATCHING_BATCH = 500


def naive(pair: Pair, setting: Setting) -> Outcome:
    """The target as it is."""
    return Outcome(pair.target.state_dict(), 0.0, {})


def weights(pair: Pair, setting: Setting) -> Outcome:
    """Weight matching (Ainsworth, Hayase and Srinivasa, 2023), from our own start."""
    return pair.timed(
        lambda: weight_matching(pair.reference, pair.target, pair.spec, generator=pair.generator()),
    )


def weights_from_identity(pair: Pair, setting: Setting) -> Outcome:
    """Weight matching as published, from the identity."""
    return pair.timed(
        lambda: weight_matching(
            pair.reference, pair.target, pair.spec, generator=pair.generator(), start="identity"
        ),
    )


def activations(similarity: Literal["correlation", "uncentred"]) -> Align:
    """Activation matching, by correlation (Li et al., 2016; Tatro et al., 2020) or uncentred (Ainsworth et al.)."""

    def method(pair: Pair, setting: Setting) -> Outcome:
        data = pair.batches(setting.budget.images, MATCHING_BATCH)
        return pair.timed(
            lambda: activation_matching(
                pair.reference, pair.target, pair.spec, data=data, similarity=similarity
            ),
        )

    return method


def straight(pair: Pair, setting: Setting) -> Outcome:
    """The straight-through estimator (Ainsworth et al., 2023)."""
    data = pair.batches(setting.budget.images, setting.budget.batch_size)
    return pair.timed(
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
    return pair.timed(lambda: ot_fusion(pair.reference, pair.target, pair.spec))


def greedy(pair: Pair, setting: Setting) -> Outcome:
    """Greedy cosine matching on normalised weights (Pittorino et al., 2022)."""
    return pair.timed(lambda: greedy_cosine(pair.reference, pair.target, pair.spec))


def annealing(pair: Pair, setting: Setting) -> Outcome:
    """Simulated annealing of the midpoint loss (Entezari et al., 2022)."""
    data = pair.batches(setting.budget.annealing_images, MATCHING_BATCH)
    return pair.timed(
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
