"""Three models and more merged into one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.cli.aligning import Wish, check_alignment
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.recipes import recipe_of
from sinkhorn_rebasin.cli.terminal import say
from sinkhorn_rebasin.merging import ManyAlignment, match_many
from sinkhorn_rebasin.permutations import PermutationSpec


def aligned_together(
    models: Sequence[LoadedModel], spec: PermutationSpec, inputs: ExampleInputs, train: Any, wish: Wish
) -> tuple[ManyAlignment, float]:
    """Align models with the first, by their weights or by what is best for training data.

    Returns:
        The alignment, and the largest change of a model's function.

    Raises:
        VerificationError: the function of an aligned model is another.
        UsageError: there is no such recipe.
    """
    networks = [model.module for model in models]
    if train is None:
        generator = torch.Generator().manual_seed(wish.seed)
        options: dict[str, Any] = {"seconds": wish.seconds, "progress": wish.progress}
        found = match_many(networks, spec, generator=generator, **options)
    elif wish.seconds is not None:
        raise UsageError(
            "Expected --seconds without --train for more than two models but got both: give --recipe."
        )
    else:
        # Imports Lightning.
        learn: Any = importlib.import_module("sinkhorn_rebasin").align_many
        recipe = None if wish.recipe is None else recipe_of(wish.recipe)
        options = {"example_inputs": inputs, "seed": wish.seed, "recipe": recipe, "progress": wish.progress}
        found = learn(networks, spec, train=train, **options)
        for note in found.notes:
            say(note)
    pairs = zip(found[1:], models[1:], strict=True)
    return found, max(check_alignment(alignment, model, inputs) for alignment, model in pairs)
