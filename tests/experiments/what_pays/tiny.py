"""A problem small enough for a test: two or more untrained networks on random samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from experiments.what_pays.budget import Pool
from experiments.what_pays.problem import Problem
from experiments.what_pays.setting import Setting, Spending
from experiments.what_pays.task import CLASSES

SPENDING = Spending(steps=4, batch_size=8, rates=(0.1,), learning_rates=(0.1,), evaluate_every=2)


def network(seed: int, width: int = 4) -> nn.Module:
    """Return an untrained network of three inputs and two classes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)).eval()


def problem(networks: Sequence[nn.Module], **changes: Any) -> Problem:
    """Return a problem of these networks, in which a sample is of class 1 where its first input is above zero."""
    torch.manual_seed(0)
    inputs, tests = torch.randn(40, 3), torch.randn(20, 3)
    pool = Pool("noise", inputs, (inputs[:, 0] > 0).long())
    setting = Setting(title="tiny", data="digits", networks=len(networks), spending=SPENDING, **changes)
    return Problem(setting, CLASSES, networks, networks, pool, (tests, (tests[:, 0] > 0).long()))
