"""Models that are to be merged: whether they can be, and the symmetries they have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.cli.data import first_inputs
from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.cli.models.from_function import called
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.models.source import load_model
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.comparison import check_comparable, check_same_function
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.heads import differing_heads
from sinkhorn_rebasin.symmetry import discover_symmetry


def load_pair(reference: str, target: str) -> tuple[LoadedModel, LoadedModel]:
    """Load two models and check that they are of one class, with tensors of the same names and types.

    Shapes are compared once it is known which layers are heads: see :func:`spec_of`.

    Raises:
        NotMergeableError: they are not; the reason and the remedy are told.
    """
    first, second = load_model(reference), load_model(target)
    check_mergeable(first, second)
    return first, second


def inputs_of(
    model: LoadedModel, inputs: str | None = None, batches: Iterable[Any] | None = None
) -> ExampleInputs:
    """Return example inputs: from a function, else from data, else what the model's config tells."""
    if inputs is not None:
        return called(inputs)
    return first_inputs(batches, model) if batches is not None else model.example_inputs()


def check_mergeable(first: LoadedModel, second: LoadedModel) -> None:
    """Raise NotMergeableError with the first reason why two models cannot be merged, and its remedy."""
    for reason in reasons_against(first, second):
        raise NotMergeableError(reason)


def reasons_against(first: LoadedModel, second: LoadedModel) -> list[str]:
    """List why two models cannot be merged, whatever their layers' widths are, each with its remedy."""
    reasons = []
    ours, theirs = (type(model.module).__name__ for model in (first, second))
    if ours != theirs:
        reasons.append(
            f"Expected two networks of one class but {first.text} is a {ours} and {second.text} a {theirs}: convert "
            f"or distill one of them into the other's class."
        )
    words = [getattr(getattr(model.module, "config", None), "vocab_size", None) for model in (first, second)]
    if words[0] != words[1]:
        reasons.append(
            f"Expected one vocabulary but {first.text} has {words[0]} tokens and {second.text} {words[1]}: bring "
            f"both to one tokenizer first, with resize_token_embeddings."
        )
    try:
        check_comparable(first.module, second.module, apart=tensors_of(first.module))
    except ArchitectureError as error:
        reasons.append(f"{error} ({first.text} and {second.text} are of two architectures.)")
    return reasons


def spec_of(
    models: Sequence[LoadedModel], inputs: ExampleInputs, ignore: Sequence[str] = ()
) -> PermutationSpec:
    """Discover the symmetries that models have in common.

    Last layers of other shapes are ignored, and layers that are named.

    Raises:
        NotMergeableError: there are none, or other layers differ in shape; the first is named.
        SpecError: a name to ignore is none.
    """
    first, *others = models
    spec = discover_symmetry(first.module, inputs, ignore=ignore)
    spec = spec.ignoring(*differing_heads(spec, [tensors_of(other.module) for other in others]))
    for other in others:
        check_shapes(first, other, spec.ignored)
    if not spec.groups:
        raise NotMergeableError(
            f"Expected hidden units that can be permuted in {first.text} but there are none: its networks can "
            f"only be merged as they are. sinkhorn-rebasin inspect tells what holds them."
        )
    return spec


def check_shapes(first: LoadedModel, second: LoadedModel, apart: Collection[str]) -> None:
    """Raise NotMergeableError unless the tensors of two models have equal shapes, but for some."""
    try:
        check_comparable(first.module, second.module, apart=apart)
    except ArchitectureError as error:
        raise NotMergeableError(
            f"{error} ({first.text} and {second.text} are of two architectures or widths: ot_fusion_across_widths "
            f"merges networks that differ in width alone, and --ignore names heads that each is to keep.)"
        ) from error


def check_function(
    first: LoadedModel, second: LoadedModel, inputs: ExampleInputs, apart: Collection[str] = ()
) -> None:
    """Raise NotMergeableError unless equal weights compute equal outputs in both models."""
    try:
        check_same_function(first.module, second.module, inputs, apart=apart)
    except ArchitectureError as error:
        raise NotMergeableError(f"{first.text} and {second.text}: {error}") from error
