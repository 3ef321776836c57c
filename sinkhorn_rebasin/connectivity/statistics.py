"""Finding the buffers that a network's own layers keep as running averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.connectivity.interpolation import (
    is_mixable,
    same_values,
    singular_vectors,
    whole_tensors,
)
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.checked_run import checked_run
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.modes import in_mode
from sinkhorn_rebasin.networks.randomness import untouched_randomness


def moving_statistics(
    reference: nn.Module, target: nn.Module, example_inputs: ExampleInputs
) -> frozenset[str]:
    """Name the differing buffers that training changes.

    They are float buffers that differ between two networks and that a run in training mode changes. Those of norm
    layers are known without a run and left out, and so are singular vectors, of which a mean is none. Without example
    inputs there is none.

    Example:
        >>> class Average(nn.Module):
        ...     def __init__(self, value):
        ...         super().__init__()
        ...         self.register_buffer("level", torch.tensor(value))
        ...     def forward(self, x):
        ...         if self.training:
        ...             self.level.lerp_(x.mean(), 0.1)
        ...         return x - self.level
        >>> moving_statistics(Average(1.0), Average(2.0), torch.ones(3))
        frozenset({'level'})
    """
    if example_inputs is None:
        return frozenset()
    ours, theirs = tensors_of(reference), tensors_of(target)
    names = {
        name
        for name in whole_tensors(target) - singular_vectors(target)
        if is_mixable(theirs[name]) and not same_values(ours[name], theirs[name])
    }
    return frozenset(names & _moved(target, example_inputs) if names else ())


def _moved(network: nn.Module, example_inputs: ExampleInputs) -> set[str]:
    """Name the buffers that a training run changes.

    The run is one forward in training mode.
    """
    twin = in_mode(standalone_copy(network), True)
    with torch.inference_mode(False), torch.no_grad(), untouched_randomness():
        buffers: dict[str, Tensor] = dict(twin.named_buffers(remove_duplicate=False))
        before = {}
        for name, buffer in buffers.items():
            if is_mixable(buffer):
                # An average that has converged would stay where it is. Expanded memory cannot be written to.
                before[name] = (buffer.mul_(1.01) if buffer.is_contiguous() else buffer).clone()
        try:
            checked_run(twin, {}, example_inputs)
        except ArchitectureError:
            return set()  # some networks run in eval mode only
        after = dict(twin.named_buffers(remove_duplicate=False))
        return {name for name, value in before.items() if not same_values(after[name], value)}
