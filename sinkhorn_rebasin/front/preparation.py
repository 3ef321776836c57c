"""What an alignment needs before it begins: checked networks, symmetries, data, and a judge."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, Heads, NetworkLike
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError, RecipeError, listed
from sinkhorn_rebasin.files.given_networks import check_weights, modules_of
from sinkhorn_rebasin.front.canonical_pair import canonical_pair
from sinkhorn_rebasin.front.criteria import criterion_for, examples_in
from sinkhorn_rebasin.front.data import (
    AlignmentData,
    alignment_data,
    check_comes_again,
    check_readable,
    first_batches,
)
from sinkhorn_rebasin.front.folds import data_in_folds
from sinkhorn_rebasin.front.judge import Judge
from sinkhorn_rebasin.front.larger_pair import larger_pair
from sinkhorn_rebasin.front.prepared_pair import Prepared
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.networks.architecture import check_heads, parameter_names_of, tensors_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.rescaling import check_rescaling
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry, rescaling_beside
from sinkhorn_rebasin.symmetry.requested import symmetry_of_pair


def prepared(
    reference: NetworkLike,
    target: NetworkLike,
    train: Any,
    validation: Any,
    *,
    criterion: Criterion | None,
    loss: RebasinLoss | None,
    batch: BatchAdapter | None,
    example_inputs: ExampleInputs,
    spec: PermutationSpec | None,
    rescale: bool | RescalingSpec,
    symmetry: RequestedSymmetry,
    untied: bool,
    expanded: bool,
    repair: bool,
    recipe: Recipe,
    seed: int,
    statistics: Any,
    trainer: Mapping[str, Any],
    ignore: Sequence[str] = (),
    heads: Heads = "reference",
) -> Prepared:
    """Check what was passed in, and get everything ready: see :func:`align` for the arguments.

    Raises:
        ArchitectureError, DataError, LossError, RecipeError, SymmetryError: as :func:`align`.
    """
    reference, target = _checked_networks(reference, target, heads)
    _check(train, criterion, loss, repair, recipe, trainer)
    data = _data(train, validation, recipe, seed, batch, trainer)
    measured, start_data = _measured(data, statistics, recipe, batch)
    first = next(iter(start_data or ([] if data is None else data.validation)), None)
    if example_inputs is None and first is not None and (spec is None or rescale is True):
        example_inputs = examples_in(reference, first, batch)
    if spec is None and example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to discover the symmetries with, or data, or a spec, but got none of them: "
            "pass example_inputs=, such as torch.zeros(2, 3, 32, 32) or a dict of keyword arguments."
        )
    given = reference, target
    wanted: RequestedSymmetry = "permutation" if repair else symmetry
    larger = larger_pair(*(reference, target, spec, wanted, example_inputs), untied=untied, expanded=expanded)
    pair = larger.reference, larger.target
    given_spec = spec is not None
    spec = symmetry_of_pair(*pair, larger.spec, example_inputs, ignore=ignore, check=given_spec, stacklevel=4)
    reference, target, continuous, turned = canonical_pair(*pair, spec, wanted, example_inputs)
    rescaling, notes = _rescaling(target, spec, rescale, example_inputs, repair, continuous)
    settings = criterion, loss, repair, recipe.points, batch, heads
    judge = None if data is None else _judge(reference, target, spec, data, measured, *settings)
    held_out, folds = ("", ()) if data is None else (data.told, data.folds)
    if statistics is not None:
        folds = tuple(replace(fold, batches=start_data) for fold in folds)
    networks = reference, target, spec, rescaling, continuous, given, example_inputs
    training = None if data is None else data.train
    told = larger.told + turned + notes + _kept_apart(spec, heads)
    return Prepared(*networks, training, start_data, judge, loss, batch, held_out, told, heads, folds)


def _judge(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    data: AlignmentData,
    measured: list[Any],
    criterion: Criterion | None,
    loss: RebasinLoss | None,
    repair: bool,
    points: int,
    batch: BatchAdapter | None,
    heads: Heads,
) -> Judge:
    """Return what decides on held-out data."""
    runs = target if heads == "target" and spec.ignored else reference
    measure = criterion_for(runs, data.validation[0], criterion, loss, batch)
    networks = reference, target, spec
    return Judge(*networks, data.validation, measured, measure, loss, repair, points, batch, heads)


def _checked_networks(
    reference: NetworkLike, target: NetworkLike, heads: Heads
) -> tuple[nn.Module, nn.Module]:
    """Return two networks that run, of weights that have a mean."""
    check_heads(heads)
    networks = modules_of(reference, target)
    for network, role in zip(networks, ("reference", "target"), strict=True):
        check_weights(tensors_of(network), role, parameter_names_of(network))
    return networks


def _kept_apart(spec: PermutationSpec, heads: Heads) -> tuple[str, ...]:
    """Tell which layers each network has for itself."""
    if not spec.ignored:
        return ()
    return (
        f"each network keeps its own {listed(sorted(spec.ignored))}; paths and merges have the {heads}'s",
    )


def _check(
    train: Any,
    criterion: Criterion | None,
    loss: RebasinLoss | None,
    repair: bool,
    recipe: Recipe,
    trainer: Mapping[str, Any],
) -> None:
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"Expected a Recipe, such as Recipe.quick() or Recipe(seconds=60), but got {type(recipe).__name__}."
        )
    if criterion is not None and not callable(criterion):
        raise LossError(
            f"Expected criterion= to be a function of (outputs, labels) but got {type(criterion).__name__}: pass "
            f"one, such as torch.nn.functional.cross_entropy."
        )
    if loss is not None and not callable(loss):
        raise LossError(
            f"Expected loss= to be a callable (rebasin, batch) to a scalar but got {type(loss).__name__}."
        )
    if loss is not None and repair:
        raise LossError("Expected repair=True or a loss of your own but got both: RepairLoss is such a loss.")
    if repair and train is None:
        raise DataError("Expected training data to do REPAIR with but got none: pass train=.")
    if not isinstance(trainer, Mapping):
        raise RecipeError(f"Expected trainer= to be options of a Trainer but got {type(trainer).__name__}.")


def _data(
    train: Any,
    validation: Any,
    recipe: Recipe,
    seed: int,
    batch: BatchAdapter | None,
    trainer: Mapping[str, Any],
) -> AlignmentData | None:
    """Training and held-out batches; without any, None."""
    if train is not None:
        few = None
        # Processes that a strategy starts keep what they saw of a fold.
        if validation is None and recipe.seconds is None and trainer.get("strategy") is None:
            few = data_in_folds(train, recipe.folds, recipe.validation_samples, seed, batch)
        return few or alignment_data(train, validation, recipe.validation_samples, seed, batch)
    if validation is None:
        return None
    check_readable("validation", validation)
    batches = first_batches(validation, recipe.validation_samples, batch)
    if not batches:
        raise DataError("Expected at least one batch of validation data but got none.")
    return AlignmentData(None, batches, "validation data")


def _measured(
    data: AlignmentData | None, statistics: Any, recipe: Recipe, batch: BatchAdapter | None
) -> tuple[list[Any], list[Any]]:
    """Training batches in memory, to measure statistics on and to match activations on."""
    source = statistics if statistics is not None else (None if data is None else data.train)
    if source is None:
        return [], []
    check_readable("train" if statistics is None else "statistics", source)
    most = first_batches(source, max(recipe.start_samples, recipe.statistics_samples), batch)
    if not most:
        raise DataError("Expected at least one training batch but got none.")
    check_comes_again("train" if statistics is None else "statistics", source)
    return first_batches(most, recipe.statistics_samples, batch), first_batches(
        most, recipe.start_samples, batch
    )


def _rescaling(
    target: nn.Module,
    spec: PermutationSpec,
    rescale: bool | RescalingSpec,
    example_inputs: ExampleInputs,
    repair: bool,
    continuous: ContinuousSpec,
) -> tuple[RescalingSpec | None, tuple[str, ...]]:
    """The scales and signs to learn, and what to tell of them."""
    if not isinstance(rescale, bool):
        check_rescaling(rescale)
    if repair:
        return None, ("permutations alone, because REPAIR gives units their scale",)
    if rescale is True and example_inputs is None:
        return None, ("no scales, because there are no example inputs to find them with",)
    if rescale is False:
        return None, ()
    rescaling = rescaling_beside(target, spec, rescale, example_inputs, continuous)
    kinds = {generator.kind for generator in rescaling.generators}
    if not kinds:
        beside = " beside these" if continuous else ""
        return None, (f"no unit of this network can be scaled or negated{beside} without a change",)
    return rescaling, ()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed inside, and leave the random states of torch, NumPy and Python as they were.

    >>> with seeded(0):
    ...     first = torch.rand(())
    >>> with seeded(0):
    ...     print(bool(first == torch.rand(())))
    True
    """
    with untouched_randomness():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield
