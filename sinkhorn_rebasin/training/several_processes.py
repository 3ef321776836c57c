"""What a re-basin needs where several processes train it together."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import distributed, nn

from sinkhorn_rebasin.errors import RebasinError
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin

SHARDING = {"DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy", "XLAFSDPStrategy"}


def frozen_names(rebasin: nn.Module, prefix: str = "") -> list[str]:
    """Name the tensors of both networks, which no process sends.

    They never change. What is learned is averaged, and the buffers that go with it come from the first process.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> sorted(frozen_names(SinkhornRebasin(net, net, torch.ones(1, 2)), "rebasin."))[:2]
    ['rebasin.reference.0.weight', 'rebasin.reference.2.weight']
    """
    return [
        f"{prefix}{path and path + '.'}{role}.{name}"
        for path, one in rebasins_in(rebasin).items()
        for role, network in {"reference": one.reference, "target": one.target}.items()
        for name, _ in network.named_buffers(remove_duplicate=False)
    ]


def rebasins_in(module: nn.Module) -> dict[str, SinkhornRebasin]:
    """Return the re-basins of a module by name: itself, or several that are learned together."""
    return {name: child for name, child in module.named_modules() if isinstance(child, SinkhornRebasin)}


def check_strategy(strategy: Any) -> None:
    """Raise RebasinError where a Trainer would split the re-basin.

    Permutations mix all units of a layer, so every process needs whole weights and scores.
    """
    kinds = {kind.__name__ for kind in type(strategy).__mro__}
    if isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)) or kinds & SHARDING:
        raise RebasinError(
            f"Expected a strategy that keeps the whole re-basin in every process, such as 'ddp', but got "
            f"{type(strategy).__name__}, which splits weights over processes: a permutation mixes all units of a "
            f"layer. Give the Trainer strategy='ddp', and wide layers scores on few candidates "
            f"(SinkhornRebasin(..., candidates=16))."
        )


def check_same_networks(rebasin: nn.Module) -> None:
    """Raise RebasinError unless all processes hold the same networks.

    As nobody sends them, nothing else would tell. Every process must call this.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    states = [
        state
        for each in rebasins_in(rebasin).values()
        for state in (each.reference_state(), each.target_state())
    ]
    sums: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(sums, [part for state in states for part in _sums(state.values())])
    if not torch.allclose(torch.tensor(sums), torch.tensor(sums[:1]), rtol=1e-12, atol=0.0, equal_nan=True):
        raise RebasinError(
            f"Expected the same reference and target in each of {len(sums)} processes but their weights add up to "
            f"{[each[0] for each in sums]} and {[each[2] for each in sums]}: load both from files, or seed every "
            f"process alike before they are made."
        )


def _sums(tensors: Any) -> tuple[float, float]:
    plain = [tensor.detach().double() for tensor in tensors if tensor.is_floating_point()]
    return sum(float(part.sum()) for part in plain), sum(float(part.square().sum()) for part in plain)
