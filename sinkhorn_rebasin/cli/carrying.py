"""Three loaded models: whether an update can be carried between them, and what the card says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.carrying import (
    Adapter,
    ByActivations,
    ByWeights,
    Distilled,
    Functional,
    FunctionalSymmetry,
    LayerByLayer,
    Learned,
    Way,
)
from sinkhorn_rebasin.carrying.adapters.bases import check_made_for
from sinkhorn_rebasin.carrying.adapters.parts import parts_of
from sinkhorn_rebasin.carrying.update import differing_heads
from sinkhorn_rebasin.cli.failures import NotMergeableError
from sinkhorn_rebasin.cli.models.loaded import LoadedModel
from sinkhorn_rebasin.cli.pair import check_function
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.fingerprint import Fingerprint
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of

WAYS: Mapping[str, Way] = {
    "weights": ByWeights(),
    "activations": ByActivations(),
    "functional": Functional(),
    "functional_symmetry": FunctionalSymmetry(),
    "layer_by_layer": LayerByLayer(),
    "learned": Learned(),
    "distilled": Distilled(),
}
"""What ``--way`` may name."""


def check_tuned(tuned: LoadedModel, base: LoadedModel, inputs: ExampleInputs) -> None:
    """Raise NotMergeableError unless a model can have been tuned from another; the first difference is named.

    Heads of other labels may differ.
    """
    _check_class(tuned, base, "its fine-tune")
    try:
        heads = differing_heads(tensors_of(tuned.module), tensors_of(base.module), "tuned network", "base")
    except ArchitectureError as error:
        raise NotMergeableError(f"{tuned.text} and {base.text}: {error}") from error
    if not heads:
        check_function(base, tuned, inputs)


def check_bases(base: LoadedModel, new_base: LoadedModel, inputs: ExampleInputs) -> None:
    """Raise NotMergeableError unless a base can take the other's place; widths and labels may differ."""
    _check_class(new_base, base, "its successor")
    first, second = tensors_of(base.module), tensors_of(new_base.module)
    if all(name in second and tensor.shape == second[name].shape for name, tensor in first.items()):
        check_function(new_base, base, inputs)


def check_adapter(adapter: Adapter, folder: str, base: LoadedModel) -> None:
    """Raise NotMergeableError unless an adapter was made for a base, and each of its targets is there."""
    try:
        check_made_for(adapter.config, base.module)
        parts_of(adapter.config, adapter.tensors, base.module)
    except ArchitectureError as error:
        raise NotMergeableError(f"{folder} and {base.text}: {error}") from error


def check_alignment_of(alignment: Alignment, base: LoadedModel, new_base: LoadedModel) -> None:
    """Raise NotMergeableError unless an alignment takes a base to its successor; the first difference is named."""
    if alignment.receipt is None:
        return
    try:
        alignment.receipt.check_target(tensors_of(base.module))
        alignment.receipt.check_reference(tensors_of(new_base.module))
    except ArchitectureError as error:
        raise NotMergeableError(f"{base.text} and {new_base.text}: {error}") from error


def facts_of_carry(
    way: str,
    scale: str | Mapping[str, float],
    prints: Sequence[Fingerprint],
    alignment: Alignment | None = None,
    notes: Sequence[str] = (),
    tuned: str = "tuned network",
) -> list[tuple[str, str]]:
    """List how an update was carried, as rows of a card.

    Args:
        way: its name.
        scale: as it is told, or of each tensor.
        prints: fingerprints of the tuned network, or of the adapter's tensors, of the base and of the new base.
        alignment: where one was given.
        notes: anything else.
        tuned: what was carried, in words.
    """
    told = scale if isinstance(scale, str) else _range(list(scale.values()))
    facts = [("carried by", way), ("scale of the update", told)]
    if alignment is not None:
        facts.append(("aligned by", alignment.method or "hand"))
        if alignment.receipt is not None and alignment.receipt.verified_error is not None:
            facts.append(("verified change of the function", f"{alignment.receipt.verified_error:.0e}"))
    for role, each in zip((tuned, "base", "new base"), prints, strict=True):
        facts.append((f"fingerprint of the {role}'s weights", each.contents))
    return [*facts, *(("note", note) for note in notes)]


def _check_class(model: LoadedModel, base: LoadedModel, role: str) -> None:
    names = [type(each.module).__name__ for each in (model, base)]
    if names[0] != names[1]:
        raise NotMergeableError(
            f"Expected a base and {role} of one class but {model.text} is a {names[0]} and {base.text} a {names[1]}: "
            f"updates are carried within one architecture."
        )


def _range(values: Sequence[float]) -> str:
    """Write numbers by their least and largest.

    >>> _range([1.0, 0.5]), _range([1.0, 1.0])
    ('0.5 to 1', '1')
    """
    ends = dict.fromkeys([min(values), max(values)])
    return " to ".join(f"{value:g}" for value in ends)
