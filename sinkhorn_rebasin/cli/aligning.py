"""Aligning two loaded models, and proving the result."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.cli.failures import UsageError, VerificationError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.pair import check_function, spec_of
from sinkhorn_rebasin.cli.recipes import recipe_of
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.files.receipt import Receipt
from sinkhorn_rebasin.matching import Alignment, activation_matching, weight_matching
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.copying import evaluation_copy, inputs_like
from sinkhorn_rebasin.networks.counted_outputs import count_only, counted
from sinkhorn_rebasin.networks.double_precision import narrow_tolerance, precision_of
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.random_inputs import in_double_precision
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_rescaling

METHODS = ("weight_matching", "activation_matching", "learned")
EXACT = 1e-9
"""Largest relative change in double precision that passes for rounding."""
LARGE = 500_000_000
"""Parameters from which a network is run in its own precision: a double one has four times a half one's size."""


@dataclass(frozen=True)
class Wish:
    """How two models are to be aligned.

    Attributes:
        method: one of :data:`METHODS`; None takes weight matching without data, and learning with data.
        seconds: budget of learning, or limit of the search of weight matching.
        signs: look for units that may be negated too.
        recipe: of learning; a name or a file.
        progress: show a bar on standard error.
        ignore: layers that each model keeps for itself, by name or pattern.
    """

    method: str | None = None
    seconds: float | None = None
    signs: bool = False
    seed: int = 0
    recipe: str | None = None
    progress: bool = False
    ignore: tuple[str, ...] = ()


def align_models(
    reference: LoadedModel,
    target: LoadedModel,
    inputs: ExampleInputs,
    batches: Iterable[Any] | None = None,
    wish: Wish = Wish(),
) -> Alignment:
    """Align a target with a reference and measure that its function stays.

    Last layers of other shapes are ignored without being named: each model keeps its own.

    Raises:
        NotMergeableError: the two compute different things from the same weights, differ in the shape of other
            layers, or have no symmetry.
        VerificationError: the aligned target's function is another.
        UsageError: the method lacks data, or does not exist.
        SpecError: a name to ignore is none.
    """
    method = wish.method or ("weight_matching" if batches is None else "learned")
    if method != "weight_matching" and batches is None:
        raise UsageError(f"Expected data for {method}: pass --train DATA, or take --method weight_matching.")
    if wish.seconds is not None and (method == "activation_matching" or not wish.seconds > 0):
        raise UsageError(
            f"Expected --seconds above 0, and a method that takes time, but got {wish.seconds:g} with {method}."
        )
    if wish.recipe is not None and method != "learned":
        raise UsageError(
            f"Expected --recipe with --method learned alone, but got it with {method}: pass --train."
        )
    spec = spec_of([reference, target], inputs, wish.ignore)
    check_function(reference, target, inputs, spec.ignored)
    found = _matched(method, reference, target, spec, inputs, batches, wish)
    error = check_alignment(found, target, inputs)
    settings = {
        "signs": wish.signs,
        "seconds": wish.seconds,
        "recipe": wish.recipe,
        "ignore": list(wish.ignore),
        "reference": reference.text,
        "target": target.text,
    }
    receipt = Receipt.of(
        tensors_of(reference.module),
        tensors_of(target.module),
        settings=settings,
        seed=wish.seed,
        verified_error=error,
    )
    return replace(found, method=found.method or method, receipt=receipt)


def _matched(
    method: str,
    reference: LoadedModel,
    target: LoadedModel,
    spec: PermutationSpec,
    inputs: ExampleInputs,
    batches: Iterable[Any] | None,
    wish: Wish,
) -> Alignment:
    if method == "learned":
        return _learned(reference, target, spec, inputs, batches, wish)
    rescaling = discover_rescaling(reference.module, spec, inputs) if wish.signs else None
    generator = torch.Generator().manual_seed(wish.seed)
    networks = reference.module, target.module
    if method == "activation_matching":
        return activation_matching(*networks, spec, data=batches, rescaling=rescaling, generator=generator)
    return weight_matching(
        *networks,
        spec,
        rescaling=rescaling,
        generator=generator,
        seconds=wish.seconds,
        progress=wish.progress,
    )


def _learned(
    reference: LoadedModel,
    target: LoadedModel,
    spec: PermutationSpec,
    inputs: ExampleInputs,
    batches: Iterable[Any] | None,
    wish: Wish,
) -> Alignment:
    package = importlib.import_module("sinkhorn_rebasin")
    align = getattr(package, "align", None)
    if not callable(align):
        raise UsageError(
            "Expected a version of this package that learns alignments from files but this one does not: take "
            "--method activation_matching."
        )
    recipe = recipe_of(wish.recipe, wish.seconds)
    # Maps of continuous symmetries act on canonical forms, and not on the networks in the files.
    options = {"symmetry": "permutation", "seed": wish.seed, "recipe": recipe}
    result = align(reference.module, target.module, batches, spec=spec, example_inputs=inputs, **options)
    alignment: Alignment = result.alignment
    return alignment


def function_change(alignment: Alignment, module: nn.Module, inputs: ExampleInputs) -> float:
    """Measure how much an alignment changes what a network computes on some inputs.

    In double precision where the network has it and is not large; relative to the largest output.

    Raises:
        ArchitectureError, SpecError: the alignment is of another network.
    """
    if alignment.receipt is not None:
        alignment.receipt.check_target(tensors_of(module))
    wide = None if is_large(module) else in_double_precision(module)
    # A scale and its inverse cancel to the precision that they are computed in.
    scales = (
        alignment.log_scales if wide is None else {n: s.double() for n, s in alignment.log_scales.items()}
    )
    check = replace(alignment, receipt=None, log_scales=scales)
    network = evaluation_copy(module) if wide is None else wide.eval()
    given = inputs_like(inputs) if wide is None else _widened(inputs)
    count_only(network, alignment.spec.outputs)
    moved = check.apply(network)
    quiet = torch.inference_mode(False), torch.no_grad(), untouched_randomness(forked=True)
    # Casts to float32 on the way, as in the norms of many transformers, would pass for a change.
    with quiet[0], quiet[1], quiet[2], precision_of(network):
        before = counted(network, run_at(network, {}, given))
        after = counted(network, run_at(network, moved, given))
    return largest_change(before, after)


def is_large(module: nn.Module) -> bool:
    """Tell whether a network is too large for a copy in double precision."""
    return sum(parameter.numel() for parameter in module.parameters()) >= LARGE


def check_alignment(alignment: Alignment, target: LoadedModel, inputs: ExampleInputs) -> float:
    """Return how much an alignment changes a model's function, relative to its largest output.

    Raises:
        VerificationError: more than rounding explains, or the alignment is of another network.
    """
    try:
        change = function_change(alignment, target.module, inputs)
    except (ArchitectureError, SpecError) as error:
        raise VerificationError(f"{target.text}: {error}") from error
    exact = not getattr(alignment, "maps", None) and not is_large(target.module)
    most = EXACT if exact else narrow_tolerance(target.module.parameters())
    if not change <= most:
        raise VerificationError(
            f"Expected the aligned {target.text} to compute what it did but its output changes by {change:.1e}, more "
            f"than {most:.0e}: the symmetries of the file are not those of this network."
        )
    return change


def _widened(inputs: ExampleInputs) -> ExampleInputs:
    return inputs_like(
        inputs, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor.clone()
    )
