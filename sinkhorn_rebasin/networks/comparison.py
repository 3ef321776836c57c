"""Whether two networks are of one architecture: they may differ in nothing but the values of their weights."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs, StateLike
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning
from sinkhorn_rebasin.networks.architecture import check_same, tensors_of, tied_names
from sinkhorn_rebasin.networks.copying import evaluation_copy, inputs_like, standalone_copy
from sinkhorn_rebasin.networks.counted_outputs import count_only, counted
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.randomness import untouched_randomness


def check_comparable(reference: nn.Module, target: nn.Module, *, apart: Collection[str] = ()) -> None:
    """Raise unless two networks differ in values alone.

    Names, shapes, types and ties of all tensors must agree; the first that does not is named. Those ``apart`` may
    differ in shape.
    """
    first, second = tensors_of(reference), tensors_of(target)
    check_same(first, second, apart=apart)
    check_types(first, second)
    ours, theirs = ({frozenset(names) for names in tied_names(net)} for net in (reference, target))
    for names in ours ^ theirs:
        holder = "first" if names in ours else "second"
        raise ArchitectureError(
            f"Expected both networks to tie the same tensors but only the {holder} ties {sorted(names)}."
        )


def check_types(first: StateLike, second: StateLike) -> None:
    """Raise ArchitectureError unless tensors are of the same types.

    >>> check_types({"w": torch.ones(1)}, {"w": torch.zeros(1)})
    """
    for name in first:
        if first[name].dtype != second[name].dtype:
            raise ArchitectureError(
                f"Expected {name!r} of one type in both networks but got {first[name].dtype} and "
                f"{second[name].dtype}; convert one of them with .to(...)."
            )


def check_same_function(
    reference: nn.Module,
    target: nn.Module,
    example_inputs: ExampleInputs,
    outputs: Outputs = None,
    *,
    apart: Collection[str] = (),
) -> None:
    """Raise unless equal weights compute equal outputs.

    The reference with the target's weights must compute what the target does. Where tensors ``apart`` are of other
    shapes, some networks do not run so, and cannot be compared.

    Warns:
        RebasinWarning: They cannot be compared.
    """
    ours, theirs = tensors_of(reference), tensors_of(target)
    reshaped = [name for name in apart if name in ours and ours[name].shape != theirs[name].shape]
    try:
        _check_same_function(reference, target, example_inputs, outputs)
    except (RuntimeError, ValueError) as error:
        if not reshaped or isinstance(error, _OtherFunctionError):
            raise
        warnings.warn(
            f"Expected to compare two networks at equal weights but {type(reference).__name__} does not run with the "
            f"other's {reshaped[0]!r}: that both compute the same at equal weights is not checked.",
            RebasinWarning,
            stacklevel=5,
        )


class _OtherFunctionError(ArchitectureError):
    """Report networks that differ in more than their weights."""


def _check_same_function(
    reference: nn.Module, target: nn.Module, example_inputs: ExampleInputs, outputs: Outputs
) -> None:
    twin, other = in_mode(standalone_copy(target), False), evaluation_copy(reference)
    for copy in (twin, other):
        count_only(copy, outputs)
    with torch.inference_mode(False), torch.no_grad(), untouched_randomness(forked=True):
        found = counted(other, run_at(other, tensors_of(twin), inputs_like(example_inputs)))
        expected = counted(twin, run_at(twin, {}, inputs_like(example_inputs)))
        change = largest_change(expected, found)
        if change > 0.0:
            # A constant in the output would hide that they differ: what other weights change is the measure.
            usual = counted(other, run_at(other, {}, inputs_like(example_inputs)))
            change = largest_change(expected, found, [usual])
    if not change <= 1e-3:
        raise _OtherFunctionError(
            "Expected two networks that differ in their weights alone but with the target's weights the "
            f"reference's output differs by {change:.1e} from the target's: is one of its layers or activations "
            "another?"
        )
