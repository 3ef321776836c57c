"""From what was passed in to a problem that a way can solve."""

from __future__ import annotations

from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs
from sinkhorn_rebasin.carrying.update import check_real, differing_heads, update_of
from sinkhorn_rebasin.carrying.way import CarryProblem
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.front.criteria import examples_in
from sinkhorn_rebasin.front.data import alignment_data, check_readable, first_batches
from sinkhorn_rebasin.front.result import AlignmentResult
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.comparison import check_same_function
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry.requested import requested_symmetry

SAMPLES = 4096
"""Most samples that are looked at, and most that are held out."""


def carry_problem(
    tuned: nn.Module,
    base: nn.Module,
    new_base: nn.Module,
    alignment: Alignment | AlignmentResult | None,
    data: Any,
    validation: Any,
    criterion: Criterion | None,
    batch: BatchAdapter | None,
    *,
    example_inputs: ExampleInputs,
    spec: PermutationSpec | None,
    seed: int,
) -> tuple[CarryProblem, list[Any]]:
    """Check networks and data: see :func:`carry` for the arguments.

    Returns:
        The problem, and held-out batches.

    Raises:
        ArchitectureError, DataError: as :func:`carry`.
    """
    update = update_of(tuned, base)
    check_supported(new_base)
    batches, held_out = held_out_batches(data, validation, seed, batch)
    if example_inputs is None and (batches or held_out):
        example_inputs = examples_in(base, (batches or held_out)[0], batch)
    if alignment is not None and not isinstance(alignment, (Alignment, AlignmentResult)):
        raise ArchitectureError(
            f"Expected an alignment of the base with the new base but got {type(alignment).__name__}: pass batches "
            f"as data=."
        )
    canonical = isinstance(alignment, AlignmentResult) and bool(alignment.rebasin.continuous)
    if isinstance(alignment, AlignmentResult):
        alignment = alignment.alignment
    if alignment is not None:
        spec = alignment.spec
    if spec is None and example_inputs is None:
        raise ArchitectureError(
            "Expected example inputs, to discover the symmetries with, or data, a spec or an alignment, but got none "
            "of them: pass example_inputs=, such as torch.zeros(2, 3, 32, 32)."
        )
    widths = _width_differs(base, new_base)
    known = spec if alignment is None or not widths else None
    spec = requested_symmetry(base, known, example_inputs, check=alignment is None)
    new_spec = requested_symmetry(new_base, None, example_inputs) if widths else spec
    heads = _check_new_base(base, new_base, spec, widths)
    if example_inputs is not None and not update.heads:
        check_same_function(base, tuned, example_inputs, spec.outputs)
    if example_inputs is not None and not widths and not heads:
        check_same_function(new_base, base, example_inputs, spec.outputs)
    check_heads(update.heads, spec)
    if heads and alignment is None:
        spec = new_spec = spec.ignoring(*(name for name in heads if name in spec.shapes))
    problem = CarryProblem(
        *(tuned, base, new_base, update, spec, new_spec),
        heads=tuple(dict.fromkeys([*update.heads, *heads])),
        alignment=alignment,
        canonical=canonical,
        example_inputs=example_inputs,
        batches=batches,
        held_out=held_out,
        criterion=criterion,
        batch=batch,
        seed=seed,
    )
    return problem, held_out


def held_out_batches(
    data: Any, validation: Any, seed: int, batch: BatchAdapter | None
) -> tuple[list[Any], list[Any]]:
    """Part batches to look at from held-out ones, both in memory.

    >>> held_out_batches(None, None, 0, None)
    ([], [])
    """
    if data is None:
        if validation is None:
            return [], []
        check_readable("validation", validation)
        return [], first_batches(validation, SAMPLES, batch)
    parted = alignment_data(data, validation, SAMPLES, seed, batch)
    return parted.first(SAMPLES, batch), parted.validation


def _width_differs(base: nn.Module, new_base: nn.Module) -> bool:
    """Tell whether the bases differ in more than first axes of single tensors."""
    first, second = tensors_of(base), tensors_of(new_base)
    return any(
        name in second and tensor.shape != second[name].shape and tensor.shape[1:] != second[name].shape[1:]
        for name, tensor in first.items()
    )


def _check_new_base(
    base: nn.Module, new_base: nn.Module, spec: PermutationSpec, widths: bool
) -> tuple[str, ...]:
    for name, tensor in new_base.named_parameters(remove_duplicate=False):
        check_real(name, tensor, "new base")
    if widths:
        return ()
    heads = differing_heads(tensors_of(new_base), tensors_of(base), "new base", "base")
    ordered = tuple(name for name in tensors_of(new_base) if name in heads)
    check_heads(ordered, spec)
    return ordered


def check_heads(heads: tuple[str, ...], spec: PermutationSpec) -> None:
    """Raise ArchitectureError where a first axis of another length holds hidden units."""
    for name in heads:
        if any(0 in slot.axes for slot in spec.slots_on(name)):
            raise ArchitectureError(
                f"Expected networks that differ in their labels alone but {name!r}, whose first axis has another "
                f"length, holds hidden units of group {spec.slots_on(name)[0].group!r}."
            )
