"""Python's collector of cycles rests while a network is followed, and is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import discover_symmetry
from sinkhorn_rebasin.errors import ArchitectureError


class Asks(nn.Sequential):
    """Note whether the collector is on in a forward."""

    seen: list[bool]

    def forward(self, x: Tensor) -> Tensor:
        Asks.seen.append(gc.isenabled())
        return super().forward(x)


@pytest.fixture(params=[True, False])
def enabled(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    Asks.seen = []
    yield request.param
    (gc.enable if before else gc.disable)()


def test_the_collector_is_as_it_was_after_a_discovery_and_after_one_that_fails(enabled: bool) -> None:
    net = Asks(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    discover_symmetry(net, torch.randn(5, 3))
    assert gc.isenabled() is enabled
    assert Asks.seen
    assert not any(Asks.seen)
    with pytest.raises(ArchitectureError):
        discover_symmetry(net, torch.randn(5, 7))
    assert gc.isenabled() is enabled
