"""The methods that are compared, each with the settings it runs with on every benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin.training.continual import (
    AveragedGEM,
    ContinualLearner,
    DarkExperienceReplay,
    DistillingRebasinLearner,
    ElasticWeightConsolidation,
    ExperienceReplay,
    FineTuning,
    JointTraining,
    LearningWithoutForgetting,
    ModeConnectivitySGD,
    RebasinLearner,
    StableSGD,
)

DESCENT: dict[str, Any] = {"lr": 0.02, "cosine": True}
"""Stochastic gradient descent with momentum 0.9; at the rate of 0.05 replay of outputs diverges.

A penalty of 100 makes EWC diverge even at this one on Rotated MNIST.
"""


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that the residual of ours has."""
    return torch.optim.AdamW(parameters, 0.004, weight_decay=0.0)


ADAMW: dict[str, Any] = {"optimizer": adamw, "cosine": True}
METHODS: dict[str, Callable[..., ContinualLearner]] = {
    "fine-tuning": partial(FineTuning, **DESCENT),
    "stable SGD": StableSGD,
    "EWC": partial(ElasticWeightConsolidation, penalty=10.0, **DESCENT),
    "LwF": partial(LearningWithoutForgetting, **DESCENT),
    "A-GEM": partial(AveragedGEM, **DESCENT),
    "experience replay": partial(ExperienceReplay, **DESCENT),
    "experience replay, AdamW": partial(ExperienceReplay, **ADAMW),
    "MC-SGD": partial(ModeConnectivitySGD, **DESCENT),
    "DER++": partial(DarkExperienceReplay, **DESCENT),
    "DER++, AdamW": partial(DarkExperienceReplay, **ADAMW),
    "re-basin, published": RebasinLearner,
    "published, without permutations": partial(RebasinLearner, scores_lr=0.0),
    "ours, without permutations": partial(DistillingRebasinLearner, scores_lr=0.0, sharpness=100.0, **ADAMW),
    "re-basin, ours": partial(DistillingRebasinLearner, **ADAMW),
    "joint training": partial(JointTraining, **DESCENT),
}
NEEDS_EXAMPLE = (
    *("re-basin, published", "published, without permutations"),
    *("re-basin, ours", "ours, without permutations"),
)


def build_learner(method: str, network: Any, tasks: int, example: Any, **options: Any) -> ContinualLearner:
    """Return the learner of a method; those that find symmetries are given example inputs.

    Example:
        >>> from torch import nn
        >>> build_learner("DER++", nn.Linear(4, 2), 3, None, per_class=2).memory
        ReplayMemory(2 per class and task, 0 samples)
    """
    given = (network, tasks, example) if method in NEEDS_EXAMPLE else (network, tasks)
    return METHODS[method](*given, **options)
