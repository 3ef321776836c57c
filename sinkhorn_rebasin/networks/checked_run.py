"""Running a copy of a network as it is, and telling what is wrong when it does not run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, Outputs, StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.arguments import call_hint
from sinkhorn_rebasin.networks.batches import move_to
from sinkhorn_rebasin.networks.copying import inputs_like, standalone_copy
from sinkhorn_rebasin.networks.counted_outputs import count_only, counted, names_asked_for, names_left_out
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.remembered import NewTensors
from sinkhorn_rebasin.networks.structures import shape_of, tensors_in
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.uncompiled import run_uncompiled

# Rounding stays below it, also where kernels add up in another order from run to run.
LARGEST_ROUNDING = 1e-4


class Returned(NamedTuple):
    """Hold a network's output, and what counts.

    The tensors that count, their names if any, and the names of what does not count.

    ``keeps`` tells whether the network holds other tensors, or values, after its run than before.
    """

    tensors: list[torch.Tensor]
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    keeps: bool


def runnable_copy(
    model: nn.Module,
    inputs: ExampleInputs,
    watch: Callable[[], AbstractContextManager[Any]],
    share_parameters: bool = False,
    outputs: Outputs = None,
) -> tuple[nn.Module, ExampleInputs, Returned]:
    """Copy a network and run the copy once.

    The copy is in eval mode; what it returned comes with it.

    The copy is on the CPU, whose kernels there are rules for, unless the network runs on its own device only. It runs
    inside of what ``watch`` makes, once a run. Of what it and copies of it return, ``outputs`` count.
    """
    check_supported(model)
    tensors = [*model.parameters(), *model.buffers(), *tensors_in(inputs)]
    if any(tensor.device.type != "cpu" for tensor in tensors):
        moved = move_to(inputs, torch.device("cpu"))
        try:
            twin = in_mode(standalone_copy(model).cpu(), False)
            count_only(twin, outputs)
            return twin, moved, _first_run(twin, moved, watch)
        except ArchitectureError:
            pass
    twin, given = standalone_copy(model, share_parameters=share_parameters), inputs_like(inputs)
    in_mode(twin, False)
    count_only(twin, outputs)
    return twin, given, _first_run(twin, given, watch)


def _first_run(
    model: nn.Module, inputs: ExampleInputs, watch: Callable[[], AbstractContextManager[Any]]
) -> Returned:
    # Networks that keep what they made of their weights would hide it from the runs that follow.
    model = standalone_copy(model, share_parameters=True)
    before = dict(model.named_parameters(remove_duplicate=False))
    new = NewTensors(model)
    with watch():
        returned = _run(model, {}, inputs)
        outputs = _counted(model, returned)
    built = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in before]
    if built:
        raise ArchitectureError(
            f"Expected a network whose layers are built but running {type(model).__name__} adds the parameter "
            f"{built[0]!r}: run it once on its inputs."
        )
    if not before:
        raise ArchitectureError("Expected a network with parameters but got one without any.")
    names = names_asked_for(model, returned)
    return Returned(tensors_in(outputs), names, names_left_out(model, returned, names), new.any)


def checked_run(model: nn.Module, state: StateLike, inputs: ExampleInputs) -> Any:
    """Run a network on a copy of the inputs.

    Returns what counts of its output.

    Raises:
        ArchitectureError: when it does not run on them, or returns no tensor that counts.
    """
    return _counted(model, _run(model, state, inputs))


def _run(model: nn.Module, state: StateLike, inputs: ExampleInputs) -> Any:
    try:
        return run_uncompiled(lambda: run_at(model, state, inputs_like(inputs)))
    except Exception as error:
        shapes = [shape_of(tensor) for tensor in tensors_in(inputs)]
        raise ArchitectureError(
            f"Expected example inputs that {type(model).__name__} runs on but got tensors of shape {shapes}, "
            f"on which it raised {type(error).__name__}: {error}{_hint(model, inputs, error)}"
        ) from error


def _counted(model: nn.Module, returned: Any) -> Any:
    outputs = counted(model, returned)
    if not tensors_in(outputs):
        raise ArchitectureError(
            f"Expected {type(model).__name__} to return at least one tensor but got {type(returned).__name__}."
        )
    return outputs


def _hint(model: nn.Module, inputs: ExampleInputs, error: Exception) -> str:
    """Say how else the inputs may be written."""
    hint = call_hint(model, inputs)
    return "" if hint in str(error) else hint


def check_repeatable(model: nn.Module, first: Any, second: Any, inputs: ExampleInputs) -> None:
    """Raise unless two runs agree up to rounding.

    The second may have been run in a way that rounds otherwise: before anything is said, the network is run again.
    """
    if largest_change(first, second) <= LARGEST_ROUNDING:
        return
    change = largest_change(first, checked_run(model, {}, inputs))
    if change > LARGEST_ROUNDING:
        raise ArchitectureError(random_message(model, change))


def random_message(model: nn.Module, change: float) -> str:
    """Say that a network's output is random."""
    return (
        f"Expected a network that returns the same output for the same input but {type(model).__name__} does not, "
        f"even in eval mode: run again, its output is random and differs by {change:.1e} of its largest value. "
        f"Switch off dropout, noise and sampling, as with `if self.training:` in its forward, and state that is kept "
        f"from run to run."
    )
