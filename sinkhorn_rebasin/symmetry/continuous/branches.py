"""Whether a network reads numbers that differ from input to input, by which it may choose what it does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.networks.dispatch_mode import DispatchMode
from sinkhorn_rebasin.networks.value_reads import ValueReads
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

RUNS = 6
SIZED_BY_VALUES = (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)


class _NumbersRead(DispatchMode):
    """Keeps the numbers that Python reads, and the sizes of what has a size by its values."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._local_scalar_dense.default:
            self.numbers.append(output)
        elif func in SIZED_BY_VALUES:
            self.numbers.append(tuple(output.shape))
        return output


def branches_on_data(trials: Trials) -> bool:
    """Whether numbers that the network reads differ between draws of its weights and inputs.

    What was proven on one branch says nothing of the others, which a turn may lead to where permutations do not.
    """
    validity = trials.spec.validity
    if validity is not None and not validity.reads_values:
        return False
    reads = []
    for _ in range(RUNS):
        lists: list[list[float]] = []

        def read(tensor: Tensor, lists: list[list[float]] = lists) -> None:
            """Keep what leaves as a list or an array."""
            lists.append(tensor.detach().double().flatten().tolist() if not tensor.is_complex() else [])

        with _NumbersRead() as numbers, ValueReads(read, lambda tensor: None):
            draw_run(trials.network, trials.weights(), trials.example_inputs, trials.generator)
        reads.append((numbers.numbers, len(lists)))
    return any(one != reads[0] for one in reads[1:])
