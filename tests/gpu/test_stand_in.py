"""Tests for GPUs on a stand-in for one, in a process of their own: that device is there for a whole process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu.device import DEVICE, STAND_IN

HERE = Path(__file__).parent


@pytest.mark.skipif(STAND_IN or torch.cuda.is_available(), reason="these tests run on a device already")
def test_networks_on_a_device_are_treated_like_those_on_the_cpu() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(HERE)],
        env={**os.environ, "SINKHORN_REBASIN_STAND_IN": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(not STAND_IN, reason="needs the stand-in for a device")
def test_a_tensor_of_the_stand_in_does_not_meet_one_of_the_cpu() -> None:
    there = torch.ones(2, device=DEVICE)
    assert (there + 1).device == DEVICE
    assert (there.cpu() + torch.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="on the CPU"):
        there + torch.ones(2)
    with pytest.raises(TypeError, match="cpu"):
        there.numpy()
