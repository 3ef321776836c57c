"""Networks that compute something else when their mode changes, as those do that fold weights in ``eval()``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.copying import inputs_like
from sinkhorn_rebasin.networks.modes import MODE_BEFORE, changes_mode_itself, free_modes
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.private_run import private_copy
from sinkhorn_rebasin.networks.randomness import untouched_randomness

_LARGEST_CHANGE = 1e-3


def failed_in_its_mode(module: nn.Module, error: Exception) -> ArchitectureError | None:
    """Say why a network fails in its mode.

    The mode was set as a flag. None stands for other networks.

    >>> failed_in_its_mode(nn.Linear(2, 2).eval(), TypeError())
    """
    kinds = _kinds(module)
    if module.training or not kinds:
        return None
    return ArchitectureError(
        f"Expected a network that runs in eval mode when the mode is set as a flag, but it raised "
        f"{type(error).__name__}: {error}. What eval() of {kinds} prepares, if that is the reason, does not follow "
        f"the weights: compute it in the forward."
    )


def _kinds(module: nn.Module) -> str:
    return ", ".join(sorted({type(c).__name__ for c in module.modules() if changes_mode_itself(c)}))


def check_mode_changes(
    module: nn.Module,
    weights: StateLike,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    outputs: Any,
) -> None:
    """Raise ArchitectureError unless ``eval()`` keeps the output.

    It is called on a network with these weights.
    """
    if module.training or not any(changes_mode_itself(child) for child in module.modules()):
        return
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}

    def copied_state() -> dict[str, Tensor]:
        """Copy the weights by name, parameters as parameters."""
        own = {name: weights.get(name, tensor).detach().clone() for name, tensor in named}
        return {name: nn.Parameter(t) if name in parameters else t for name, t in own.items()}

    with torch.no_grad(), untouched_randomness():
        witness = private_copy(module, copied_state())
        modes = [child.training for child in witness.modules()]
        before = [(child, vars(child).get(MODE_BEFORE, child.training)) for child in witness.modules()]
        free_modes(witness)
        for child, mode in before:
            child.training = mode
        witness.eval()
        for child, mode in zip(witness.modules(), modes, strict=True):
            child.training = mode
        given, named_given = inputs_like((arguments, keywords))  # the network may write to its inputs
        change = largest_change(outputs, witness(*given, **named_given))
        if change <= _LARGEST_CHANGE:
            return
        # A network that chooses by close values may differ from run to run without any change of modes.
        again = largest_change(outputs, private_copy(module, copied_state())(*arguments, **keywords))
    if again <= _LARGEST_CHANGE:
        raise ArchitectureError(
            f"Expected a network that computes the same whether its mode is set by eval() or as a flag, but eval() "
            f"of {_kinds(module)} changes the output by {change:.1e}: it replaces weights or keeps what it made of "
            f"them, which is wrong at others. Compute that in the forward, or pass the network in the form in which "
            f"its parameters are all it reads."
        )
