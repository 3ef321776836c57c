"""The network whose runs are followed, and all that belongs to it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.networks.checked_run import Returned


@dataclass(frozen=True)
class Subject:
    """Hold a copy of a network that runs, with its inputs and the tensors that may move.

    Attributes:
        model: the copy, in eval mode.
        inputs: a copy of the example inputs, on the same device.
        returned: what the first run returned.
        state: parameters and moving buffers by name, without gradients; names that are tied share one tensor.
        buffers: names of the buffers among them.
        guard: what each run is inside of, so that it leaves the parameters as they are.
    """

    model: nn.Module
    inputs: ExampleInputs
    returned: Returned
    state: State
    buffers: frozenset[str]
    guard: AbstractContextManager[Any]


def detached(tensors: State) -> State:
    """Detach tensors; names that share one share its detached twin.

    >>> weight = nn.Parameter(nn.Linear(2, 1).weight)
    >>> state = detached({"first": weight, "second": weight})
    >>> state["first"] is state["second"], state["first"].requires_grad
    (True, False)
    """
    twins = {id(tensor): tensor.detach() for tensor in tensors.values()}
    return {name: twins[id(tensor)] for name, tensor in tensors.items()}
