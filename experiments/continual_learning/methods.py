"""The methods that are compared: each runs with its own defaults on every benchmark, unless it is said here.

Those of gradient descent are a rate of 0.02 with momentum 0.9, falling along a cosine: at 0.05 replay of outputs
diverges. A penalty of 100 makes EWC diverge even at this rate on Rotated MNIST.
"""

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


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that ours has."""
    return torch.optim.AdamW(parameters, 0.004, weight_decay=0.0)


METHODS: dict[str, Callable[..., ContinualLearner]] = {
    "fine-tuning": FineTuning,
    "stable SGD": StableSGD,
    "EWC": ElasticWeightConsolidation,
    "LwF": LearningWithoutForgetting,
    "A-GEM": AveragedGEM,
    "experience replay": ExperienceReplay,
    "experience replay, AdamW": partial(ExperienceReplay, optimizer=adamw),
    "MC-SGD": ModeConnectivitySGD,
    "DER++": DarkExperienceReplay,
    "DER++, AdamW": partial(DarkExperienceReplay, optimizer=adamw),
    "re-basin, published": RebasinLearner,
    "published, without permutations": partial(RebasinLearner, scores_lr=0.0),
    "ours, without permutations": partial(DistillingRebasinLearner, scores_lr=0.0, sharpness=100.0),
    "re-basin, ours": DistillingRebasinLearner,
    "joint training": JointTraining,
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
