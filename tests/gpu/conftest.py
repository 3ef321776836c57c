"""Tests of this folder run where tensors can be made on the stand-in device, if that is what they run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gpu.device import STAND_IN


@pytest.fixture(autouse=True)
def _device_in_reach() -> Iterator[None]:
    if not STAND_IN:
        yield
        return
    from tests.gpu.stand_in import StandIn

    with StandIn():
        yield
