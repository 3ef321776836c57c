"""The Sinkhorn losses without our recipe: in this package, and as published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch.nn import functional as F

from experiments.compare_methods.pair import Align, Outcome, Pair
from experiments.compare_methods.setting import Setting
from experiments.published import PublishedError, published_midpoint
from sinkhorn_rebasin import (
    Alignment,
    FisherDistance,
    sinkhorn_matching,
)

PUBLISHED_IMAGES, PUBLISHED_STEPS = 9000, 180
CURVATURE_BATCH = 100

Curvature: TypeAlias = Callable[..., Any]


def sinkhorn(loss: Literal["l1", "l2", "midpoint", "random_point"]) -> Align:
    """A published Sinkhorn loss (Guerrero-Peña et al., 2023), in this package by Adam and annealing alone."""

    def method(pair: Pair, setting: Setting) -> Outcome:
        budget = setting.budget
        data = pair.batches(PUBLISHED_IMAGES, budget.batch_size)
        return pair.timed(
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


def sinkhorn_in_the_metric_of_the_loss(curvature: Curvature) -> Align:
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

        return pair.timed(match)

    return method


def published(pair: Pair, setting: Setting) -> Outcome:
    """The published implementation's midpoint loss with the settings of its own example, in its own environment.

    Its example also evaluates on the training images after every epoch, which changes nothing and is left out.

    Raises:
        PublishedError: the pair does not tell the Python of that environment, or the implementation raised.
    """
    if pair.published_python is None:
        raise PublishedError(
            "Expected the Python of the published implementation's environment but got none. Name it with "
            "--published-python; experiments/published tells how to make it."
        )
    result = published_midpoint(
        pair.published_python,
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
