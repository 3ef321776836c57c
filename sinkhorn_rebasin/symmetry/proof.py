"""Prove or qualify what discovery found on branching networks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import (
    ArchitectureError,
    CoverageWarning,
    RebasinWarning,
    SpecError,
    SymmetryError,
    listed,
)
from sinkhorn_rebasin.networks.arguments import arguments_of, parameter_names
from sinkhorn_rebasin.networks.structures import shape_of, tensors_in
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.views.coverage import (
    MEETS,
    OUTPUT,
    UNUSED,
    share_of_what_could_move,
    what_holds,
)
from sinkhorn_rebasin.symmetry.tracing.tape import Tape
from sinkhorn_rebasin.symmetry.verification.verification import verify_symmetry

# Shares of what could move under which it is told.
LITTLE = 0.9


def proven(model: nn.Module, spec: PermutationSpec, example_inputs: ExampleInputs) -> PermutationSpec:
    """Drop groups that verification refutes; note the change."""
    while spec.groups:
        try:
            change = verify_symmetry(model, spec, example_inputs)
        except ArchitectureError:
            return spec  # it runs on no inputs but the example's
        except SymmetryError as error:
            if not error.groups:
                return spec  # no output that can be compared
            _warn(
                f"Expected permutations that leave the output of {type(model).__name__}, which reads values, "
                f"unchanged but those of the groups {', '.join(map(repr, error.groups))} do not on other inputs than "
                f"the example's: they are frozen."
            )
            spec = spec.without(
                *error.groups, reason="it changes the output on other inputs than the example's"
            )
        else:
            return replace(spec, validity=spec.validity and replace(spec.validity, change=change))
    return spec


def warn_of_what_was_not_followed(model: nn.Module, tape: Tape) -> None:
    """Warn of branches and computations that were not followed."""
    name = type(model).__name__
    if tape.never_used:
        _warn(
            f"Expected a network that branches on its data to use all parameters on inputs like the example's but no "
            f"run used {', '.join(map(repr, tape.never_used))}: permutations may change what it computes where it "
            f"does. Pass example inputs that reach them."
        )
    if tape.more_branches_than_followed:
        _warn(
            f"Expected {name}, which branches on its data, to take few ways on inputs like the example's but it took "
            f"more than were followed, of which the last took a symmetry away: permutations may change what it "
            f"computes on other inputs. Compare it with its permuted self on your data."
        )
    if tape.unseen is not None:
        place = f" at {tape.unseen.source}" if tape.unseen.source else ""
        _warn(
            f"Expected {name} to compute where it can be followed but it uses a tensor{place} that no operation seen "
            f"has made, as other threads and libraries do: everything it computes is frozen. Compute it in the "
            f"thread of the forward, by operations of PyTorch."
        )


def warn_of_frozen_attention(model: nn.Module, spec: PermutationSpec, tape: Tape) -> None:
    """Warn of projections of attention that stay, and why.

    Axes that face inputs, constants or what stays for another reason are not named.
    """
    stay: dict[str, list[str]] = {}
    for item in spec.frozen:
        is_projection = item.tensor in tape.attention.names and item.reason not in (MEETS, UNUSED)
        if is_projection and spec.shapes[item.tensor][item.axis] > 1:
            operation = "" if item.reason.startswith(item.operation) else f"{item.operation} "
            place = f" ({operation}at {item.source})" if item.source else ""
            stay.setdefault(f"{item.reason}{place}", []).append(f"{item.tensor!r} axis {item.axis}")
    if not stay:
        return
    told = "; ".join(f"{listed(axes)}: {reason}" for reason, axes in stay.items())
    advice = (
        " If what a network keeps for its next call is among its outputs, pass outputs= with those that count."
        if any(reason.startswith(OUTPUT) for reason in stay)
        else ""
    )
    _warn(
        f"Expected attention of {type(model).__name__} whose queries, keys and values can be permuted but these axes "
        f"of its projections stay as they are: {told}.{advice}",
        CoverageWarning,
    )


def _warn(text: str, kind: type[RebasinWarning] = RebasinWarning) -> None:
    # Through the three calls that lead here from the line that asked for the symmetries.
    """Warn at the line that asked for symmetries."""
    warnings.warn(text, kind, stacklevel=4)


def check_coverage(model: nn.Module, spec: PermutationSpec, least: float) -> None:
    """Warn of little coverage; raise below ``least``."""
    refuse_little(model, spec, least)
    share = share_of_what_could_move(spec)
    if share < LITTLE:
        _warn(f"{_told(model, spec, share)}; pass min_coverage= to refuse such networks.", CoverageWarning)


def refuse_little(model: nn.Module, spec: PermutationSpec, least: float) -> None:
    """Raise SymmetryError when too small a share can move."""
    if not 0.0 <= least <= 1.0:
        raise SpecError(f"Expected min_coverage to be a share between 0 and 1 but got {least!r}.")
    share = share_of_what_could_move(spec)
    if share < least:
        raise SymmetryError(f"{_told(model, spec, share)}; min_coverage asks for {least:.1%}.")


def _told(model: nn.Module, spec: PermutationSpec, share: float) -> str:
    """Describe the share of parameters that can move."""
    return (
        f"Expected most of {type(model).__name__} to be permutable but of its parameter elements that could move "
        f"only {share:.1%} are: {what_holds(spec)}. print(spec) names every axis that stays"
    )


def described_inputs(model: nn.Module, example_inputs: ExampleInputs) -> tuple[str, ...]:
    """Describe every tensor among the example inputs.

    >>> import torch
    >>> described_inputs(nn.Linear(3, 2), torch.ones(4, 3))
    ('input: (4, 3) float32',)
    """
    values, keywords = arguments_of(model, example_inputs)
    names = parameter_names(model)
    named: list[tuple[str, Any]] = [
        (names[place] if place < len(names) else str(place), value) for place, value in enumerate(values)
    ]
    named += keywords.items()
    return tuple(_described(name, tensor) for name, value in named for tensor in tensors_in(value))


def _described(name: str, tensor: Tensor) -> str:
    """Describe a tensor by name, shape and type."""
    return f"{name}: {shape_of(tensor)} {str(tensor.dtype).removeprefix('torch.')}"
