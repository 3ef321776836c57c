"""Training where there is a GPU: the same as on the CPU, and nothing wide leaves the device but for assignments."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin import MidpointLoss, SinkhornRebasin, WeightDistance
from sinkhorn_rebasin.assignment import sinkhorn, sparse_sinkhorn
from tests.gpu.device import DEVICE, on_a_device
from tests.rebasin.test_candidates import planted

LOSSES = {"l2": WeightDistance("l2"), "inner": WeightDistance("inner"), "midpoint": MidpointLoss()}


class LeavesTheDevice(TorchDispatchMode):
    """Notes the largest tensor that is copied from one device to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        # copy_ writes into its first argument, which it also returns.
        if any(tensor.device.type == "cpu" for tensor in made):
            sizes = [tensor.numel() for tensor in given if tensor.device.type != "cpu"]
            self.largest = max([self.largest, *sizes])
        return result


def steps(rebasin: SinkhornRebasin, loss: Any, count: int, device: str | torch.device) -> list[float]:
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(count):
        batch = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        value = loss(rebasin, [part.to(device) for part in batch])
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


@on_a_device
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("candidates", ["all", 8])
def test_a_gpu_learns_what_the_cpu_learns(name: str, candidates: Any) -> None:
    net, target, spec, _ = planted(32)
    here = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=candidates)
    there = copy.deepcopy(here).to(DEVICE)
    loss = LOSSES[name]
    assert steps(there, copy.deepcopy(loss), 4, DEVICE) == pytest.approx(
        steps(here, copy.deepcopy(loss), 4, "cpu"), rel=1e-3
    )
    for group, scores in here.scores.items():
        assert there.scores[group].device == DEVICE
        assert torch.allclose(there.scores[group].cpu(), scores, atol=1e-2)


@on_a_device
@pytest.mark.parametrize("candidates", ["all", 8])
def test_a_step_leaves_everything_wide_on_the_device(candidates: Any) -> None:
    net, target, spec, _ = planted(64)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=candidates).to(DEVICE)
    loss = WeightDistance("l2")
    loss(rebasin).backward()
    with LeavesTheDevice() as seen:
        loss(rebasin).backward()
    assert seen.largest <= 64


@on_a_device
def test_the_operators_agree_with_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 200, generator=generator)
    assert torch.allclose(
        sinkhorn(scores.to(DEVICE), 0.3).matrix.cpu(), sinkhorn(scores, 0.3).matrix, atol=1e-5
    )
    top = scores.topk(12)
    sparse = [
        sparse_sinkhorn(top.values.to(device), top.indices.to(device), 0.3).dense()
        for device in ("cpu", DEVICE)
    ]
    assert torch.allclose(sparse[1].cpu(), sparse[0], atol=1e-5)


def test_what_leaves_a_device_is_seen() -> None:
    # "meta" stands in for a GPU: nothing can be read from it, but it is told apart.
    with LeavesTheDevice() as seen:
        torch.ones(5) + torch.ones(5)
        assert seen.largest == 0
        torch.empty(3, device="meta").new_empty(2, device="cpu")
    assert seen.largest == 3


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_candidates(name: str) -> None:
    net, target, spec, _ = planted(32)
    rebasin = SinkhornRebasin(net, target, spec=spec, start="identity", candidates=8)
    before = {group: scores.detach().clone() for group, scores in rebasin.scores.items()}
    assert len(steps(rebasin, copy.deepcopy(LOSSES[name]), 4, "cpu")) == 4
    assert all(not torch.equal(scores, before[group]) for group, scores in rebasin.scores.items())
