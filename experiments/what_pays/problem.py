"""One group of networks, their symmetries, the samples of budgets, and the test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

import sinkhorn_rebasin
from experiments.data import ImageData, load_cifar10, load_digits, load_mnist
from experiments.models.endpoints import load_or_train
from experiments.what_pays.budget import Budget, Pool, held_out_of, samples_of
from experiments.what_pays.owners import of_owner, shares_of_classes
from experiments.what_pays.setting import Setting
from experiments.what_pays.task import CLASSES, Task, check_of_one_kind
from sinkhorn_rebasin import PermutationSpec, Recipe, RescalingSpec
from sinkhorn_rebasin.front.folds import FEW, data_in_folds

Samples = tuple[Tensor, Tensor]
FOLDS = Recipe().folds


@dataclass(frozen=True)
class Given:
    """Hold what a way may look at: a part of the samples decides, and the others train.

    Of few samples all do both: each fold is what one part of them is kept out of.

    Attributes:
        train, held_out: inputs, and labels or what the networks say together.
        batch_size: of training.
        folds: of few samples; none where a part decides.
    """

    train: Samples
    held_out: Samples
    batch_size: int
    folds: tuple[Given, ...] = ()

    def batches(self, of: Samples | None = None) -> list[Samples]:
        """Return all samples in batches of about one size, none larger than the batch size."""
        inputs, targets = self.train if of is None else of
        count = math.ceil(len(inputs) / self.batch_size)
        return list(zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True))


@dataclass(frozen=True)
class Problem:
    """Hold one group of networks and all that ways are given.

    Attributes:
        setting: where it comes from.
        task: what the networks are asked for.
        networks: that are merged.
        asked: networks whose answers are averaged where there are no labels.
        pool: of all samples that a budget may be made of.
        test: inputs and what is right.
        group: number of the group, and seed of all that is drawn.
        spec, rescaling: the symmetries; no rescaling where no unit can be scaled.
    """

    setting: Setting
    task: Task
    networks: Sequence[nn.Module]
    asked: Sequence[nn.Module]
    pool: Pool
    test: Samples
    group: int = 0
    spec: PermutationSpec = field(init=False)
    rescaling: RescalingSpec | None = field(init=False)

    def __post_init__(self) -> None:
        check_of_one_kind(self.networks, [f"network {number}" for number in self.setting.seeds(self.group)])
        spec = sinkhorn_rebasin.discover_symmetry(self.networks[0], self.example)
        rescaling = sinkhorn_rebasin.discover_rescaling(self.networks[0], spec, self.example)
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "rescaling", rescaling if rescaling.generators else None)

    @property
    def example(self) -> Tensor:
        """Return inputs to find symmetries on."""
        return self.pool.inputs[:2] if self.pool.example is None else self.pool.example

    @property
    def _folds(self) -> bool:
        """Whether few samples are parted into folds; ways of more than two networks keep a part out."""
        return len(self.networks) == 2

    def given(self, budget: Budget) -> Given:
        """Return what a budget buys.

        Of large budgets no more is kept than fits into the steps that every way takes.
        """
        spending = self.setting.spending
        inputs, labels = samples_of(self.pool, budget)
        count = held_out_of(len(inputs))
        inputs = inputs[: count + spending.steps * spending.batch_size]
        targets = self.task.said_together(self.asked, inputs) if labels is None else labels[: len(inputs)]
        whole = inputs, targets
        few = data_in_folds([whole], FOLDS, FEW, self.group, None) if self._folds else None
        if few is not None:
            parts = [(fold.batches[0], fold.validation[0]) for fold in few.folds]
            folds = tuple(Given(*part, spending.batch_size) for part in parts)
            return Given(whole, whole, spending.batch_size, folds)
        train, held_out = (inputs[count:], targets[count:]), (inputs[:count], targets[:count])
        return Given(train, held_out, spending.batch_size)


def image_problem(setting: Setting, group: int, data: ImageData, cache: Path) -> Problem:
    """Train the networks of one group, or read them, and set samples aside.

    Args:
        setting: says who has which images.
        group: number of the group.
        data: all of it.
        cache: folder of trained networks.
    """
    seen, (unseen, unseen_labels) = data.hold_out(setting.held_out)
    parts = [seen] * setting.networks
    if setting.share is not None:
        places = shares_of_classes(seen.train_labels, setting.networks, setting.share, seed=group)
        parts = [of_owner(seen, each, f"{seen.name}-{setting.share:g}") for each in places]
    networks = [
        load_or_train(cache, setting.endpoint(seed), part)
        for seed, part in zip(setting.seeds(group), parts, strict=True)
    ]
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(group))
    pool = Pool(
        data.name,
        torch.cat([unseen[order], seen.train_images]),
        torch.cat([unseen_labels[order], seen.train_labels]),
    )
    test = data.test_images[: setting.test_images], data.test_labels[: setting.test_images]
    return Problem(setting, CLASSES, networks, networks, pool, test, group)


def image_data(setting: Setting, root: Path) -> ImageData:
    """Read the images of a setting."""
    if setting.data == "digits":
        return load_digits(setting.images)
    return (load_mnist if setting.data == "mnist" else load_cifar10)(root, setting.images)
