"""The device that the tests of this folder run on: a GPU where there is one, a stand-in where it is asked for."""

from __future__ import annotations

import os

import pytest
import torch

STAND_IN = "SINKHORN_REBASIN_STAND_IN" in os.environ and not torch.cuda.is_available()
if STAND_IN:
    from tests.gpu.stand_in import device

    DEVICE = device()
else:
    DEVICE = torch.device("cuda", 0)

on_a_device = pytest.mark.skipif(
    not (STAND_IN or torch.cuda.is_available()),
    reason="needs a GPU, and there is none; test_stand_in.py runs it on a stand-in for one",
)
not_on_the_stand_in = pytest.mark.skipif(STAND_IN, reason="needs what the stand-in for a GPU lacks")
