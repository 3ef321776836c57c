"""Networks that return an object with logits are learned as those that return the logits alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.training.continual import FineTuning, learn_tasks
from tests.symmetry.attention_networks import ModelOutput
from tests.training.continual.tasks import LEARNERS, net, tasks, trainers


class Reporting(nn.Module):
    """A network that reports its logits beside something else."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(logits=self.body(x), hidden=self.body[0](x))


class Plain(Reporting):
    """The same, which returns its logits."""

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_take_the_logits(name: str, tmp_path: Path) -> None:
    ends = []
    for kind in (Plain, Reporting):
        torch.manual_seed(0)
        learner = LEARNERS[name](kind(), 2)
        scores = learn_tasks(learner, tasks(2), trainers(tmp_path, epochs=1))
        ends.append((scores, learner.network.state_dict()))
    torch.testing.assert_close(ends[0][0], ends[1][0], equal_nan=True)
    for key, tensor in ends[0][1].items():
        torch.testing.assert_close(tensor, ends[1][1][key], rtol=1e-4, atol=1e-5)


def test_outputs_without_logits_say_what_to_do() -> None:
    class Hiding(Reporting):
        def forward(self, x: Tensor) -> Any:
            return {"scores": self.body(x)}

    with pytest.raises(DataError, match="logits among other outputs, but got dict: wrap it"):
        FineTuning(Hiding(), 2)(torch.randn(2, 4))
