"""Three models and more merged into one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.activations import repair
from sinkhorn_rebasin.cli.aligning import Wish, check_alignment
from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.recipes import recipe_of
from sinkhorn_rebasin.merging import ManyAlignment, match_many
from sinkhorn_rebasin.networks.copying import standalone_copy
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
    pairs = zip(found[1:], models[1:], strict=True)
    return found, max(check_alignment(alignment, model, inputs) for alignment, model in pairs)


def repaired_mean(
    networks: Sequence[nn.Module], found: ManyAlignment, mean: State, statistics: Any
) -> nn.Module:
    """Return a mean with its networks' statistics.

    The networks are aligned.
    """
    first, *others = map(_with_state, networks, found.apply(networks))
    return repair(_with_state(networks[0], mean), first, others, found.spec, statistics)


def _with_state(network: nn.Module, state: State) -> nn.Module:
    twin = standalone_copy(network)
    twin.load_state_dict(state, strict=False)
    return twin
