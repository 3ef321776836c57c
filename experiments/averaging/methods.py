"""Networks on their way from initialisation, and every way to align two of them."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

import sinkhorn_rebasin as sr
from experiments.averaging.setting import Setting
from experiments.data import ImageData
from experiments.models.family import Batches
from sinkhorn_rebasin.connectivity import evaluate_state

AFTER_TRAINING = ("as they are", "random permutation", "weight matching", "activation matching")
AT_THE_STEP = "activation matching at the step itself"
OURS = "ours, learned before training"


def stages(setting: Setting, data: ImageData, seed: int) -> list[nn.Module]:
    """Train a network by Adam, and return a copy of it after each of the setting's steps."""
    size, kept = min(setting.training.batch_size, len(data.train_labels)), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = setting.fresh()
        adam = torch.optim.Adam(network.parameters(), setting.training.learning_rate)
        for step in range(max(setting.steps) + 1):
            if step in setting.steps:
                kept.append(copy.deepcopy(network).eval())
            batch = torch.randint(len(data.train_labels), (size,))
            loss = F.cross_entropy(network(data.train_images[batch]), data.train_labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return kept


def curves(
    pair: tuple[list[nn.Module], list[nn.Module]],
    train: Batches,
    held: Batches,
    tests: Batches,
    setting: Setting,
    seed: int,
) -> dict[str, list[float]]:
    """Return the test accuracy of the average after each step, by method.

    Args:
        pair: both networks at all steps.
        train, held, tests: batches of images; held-out ones decide what ours keeps.
        setting: with the recipe of ours.
        seed: of the random permutation and of ours.
    """
    reference, target = pair
    spec = sr.discover_symmetry(reference[0], train[0][0][:2])
    draw = torch.Generator().manual_seed(seed)
    last = reference[-1], target[-1], spec
    alignments = {
        "as they are": sr.Alignment(sr.identity_permutations(spec), spec),
        "random permutation": sr.Alignment(sr.random_permutations(spec, generator=draw), spec),
        "weight matching": sr.weight_matching(*last, restarts=5, generator=draw),
        "activation matching": sr.activation_matching(*last, data=train),
        OURS: learned(reference[0], target[0], spec, train, held, setting, seed),
    }
    found = {
        name: [average(*both, alignment, tests, train) for both in zip(reference, target, strict=True)]
        for name, alignment in alignments.items()
    }
    found[AT_THE_STEP] = [
        average(*both, sr.activation_matching(*both, spec, data=train), tests, train)
        for both in zip(reference, target, strict=True)
    ]
    return found


def learned(
    reference: nn.Module,
    target: nn.Module,
    spec: sr.PermutationSpec,
    train: Batches,
    held: Batches,
    setting: Setting,
    seed: int,
) -> sr.Alignment:
    """Learn the permutations with which the average of two untrained networks has the least loss."""
    return sr.align(
        reference,
        target,
        train,
        held,
        loss=sr.MidpointLoss(F.cross_entropy),
        spec=spec,
        rescale=False,
        recipe=setting.recipe,
        seed=seed,
        trainer={"accelerator": "cpu"},
        progress=False,
    ).alignment


def average(
    reference: nn.Module, target: nn.Module, alignment: sr.Alignment, tests: Batches, train: Batches
) -> float:
    """Return the test accuracy halfway between a reference and an aligned target.

    Batch norm is measured anew on training images.
    """
    path = sr.LinearPath(reference, alignment.apply(target), reference)
    state = sr.BatchNormReset(train)(reference, path.state_at(0.5))
    accuracy = evaluate_state(reference, state, tests, F.cross_entropy)[1]
    return float("nan") if accuracy is None else accuracy


def ends(pair: tuple[list[nn.Module], list[nn.Module]], tests: Batches) -> list[float]:
    """Return the mean test accuracy of both networks after each step."""
    accuracies = [
        [
            evaluate_state(network, dict(network.state_dict()), tests, F.cross_entropy)[1] or 0.0
            for network in side
        ]
        for side in pair
    ]
    return [sum(both) / 2 for both in zip(*accuracies, strict=True)]
