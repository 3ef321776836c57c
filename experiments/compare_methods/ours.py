"""Ours: one call of :func:`sinkhorn_rebasin.align` with a setting's recipe and an experiment's data."""

from __future__ import annotations

import torch
from torch import Tensor

import sinkhorn_rebasin
from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Recipe
from experiments.data import InMemoryDataModule

STATISTICS_IMAGES = 500


def align(pair: Pair, recipe: Recipe, *, rescale: bool = False, repaired: bool = False) -> Outcome:
    """Align the pair, and tell what it took.

    What is better is decided on images that the alignment does not learn from: those the networks have not seen
    either, where the setting holds some out, else some of their training images.

    Args:
        rescale: learn scales and signs too.
        repaired: train, and decide what is better, for networks that REPAIR puts right.
    """
    spec = pair.spec  # discovered once for all methods, and not counted
    result = sinkhorn_rebasin.align(
        pair.reference,
        pair.target,
        data_of(pair, recipe).train_dataloader(),
        held_out_of(pair, recipe),
        example_inputs=pair.data.train_images[:2],
        spec=spec,
        rescale=rescale,
        symmetry="permutation",
        repair=repaired,
        recipe=recipe,
        seed=pair.seed,
        trainer={"accelerator": "cpu", "precision": "bf16-mixed" if recipe.bfloat16 else "32-true"},
        statistics=trained_on(pair, recipe, max(recipe.start_samples, recipe.statistics_samples)),
    )
    notes = {"start": result.start.replace("_", " "), "history": result.history}
    rebasin = result.rebasin
    return Outcome(rebasin.rebased_state(hard=True), result.seconds, rebasin.hard_permutations(), notes)


def data_of(pair: Pair, recipe: Recipe) -> InMemoryDataModule:
    """The images that the alignment learns from."""
    size = min(recipe.batch_size, len(pair.data.train_labels) // 4)
    fraction = 0.1 if pair.unseen is None else 0.0
    return InMemoryDataModule(pair.data, batch_size=size, seed=pair.seed, validation_fraction=fraction)


def trained_on(pair: Pair, recipe: Recipe, count: int) -> list[tuple[Tensor, Tensor]]:
    """So many of the images that are trained on: to match activations, reset batch norm and do REPAIR with."""
    return _batches(
        pair.data.train_images, pair.data.train_labels, data_of(pair, recipe).train_indices[:count]
    )


def held_out_of(pair: Pair, recipe: Recipe) -> list[tuple[Tensor, Tensor]]:
    """The images that decide what is kept."""
    if pair.unseen is not None:
        return _batches(*pair.unseen, torch.arange(min(recipe.validation_samples, len(pair.unseen[1]))))
    indices = data_of(pair, recipe).validation_indices[: recipe.validation_samples]
    return _batches(pair.data.train_images, pair.data.train_labels, indices)


def _batches(images: Tensor, labels: Tensor, indices: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(images[part], labels[part]) for part in indices.split(STATISTICS_IMAGES)]
