"""The methods that are compared, each with the settings it runs with on every benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sinkhorn_rebasin import (
    AveragedGEM,
    ContinualLearner,
    DarkExperienceReplay,
    DistillingRebasinLearner,
    ElasticWeightConsolidation,
    ExperienceReplay,
    FineTuning,
    JointTraining,
    LearningWithoutForgetting,
    RebasinLearner,
    StableSGD,
)

METHODS: dict[str, Callable[..., ContinualLearner]] = {
    "fine-tuning": FineTuning,
    "stable SGD": StableSGD,
    "EWC": ElasticWeightConsolidation,
    "LwF": LearningWithoutForgetting,
    "A-GEM": AveragedGEM,
    "experience replay": ExperienceReplay,
    "DER++": DarkExperienceReplay,
    "experience replay, cosine": partial(ExperienceReplay, lr=0.02, cosine=True),
    "DER++, cosine": partial(DarkExperienceReplay, lr=0.02, cosine=True),
    "re-basin, published": RebasinLearner,
    "re-basin, ours": DistillingRebasinLearner,
    "joint training": JointTraining,
}
"""Replay stands here twice: as published, and with the learning rate and its schedule that ours has."""

NEEDS_EXAMPLE = (RebasinLearner,)


def build_learner(method: str, network: Any, tasks: int, example: Any, **options: Any) -> ContinualLearner:
    """Return the learner of a method; those that find symmetries are given example inputs.

    Example:
        >>> from torch import nn
        >>> build_learner("DER++", nn.Linear(4, 2), 3, None, per_class=2).memory
        ReplayMemory(2 per class and task, 0 samples)
    """
    factory = METHODS[method]
    if isinstance(factory, type) and issubclass(factory, NEEDS_EXAMPLE):
        options["example_inputs"] = example
    return factory(network, tasks, **options)
