"""The sum of three networks' outputs, and that sum distilled into the new base."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.carry.bench import Bench, Tried
from experiments.carry.pairs import Pair
from sinkhorn_rebasin.networks.copying import standalone_copy

RATES = (3e-4, 1e-3, 3e-3)
LOWEST = 1e-4
STEPS = 300
SCALES = (0.5, 0.75, 1.0, 1.25)


class Summed(nn.Module):
    """Give the outputs of the new base plus those of the tuned network minus those of its base."""

    def __init__(self, pair: Pair, scale: float = 1.0) -> None:
        super().__init__()
        self.new_base, self.tuned, self.base = pair.new_base, pair.tuned, pair.base
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.new_base(inputs) + self.scale * (self.tuned(inputs) - self.base(inputs))
        return output


def sum_of_logits(bench: Bench) -> Iterator[Tried]:
    """Give the sum at several scales: three networks at every call."""
    for scale in SCALES:
        yield {"scale": scale}, Summed(bench.pair, scale).eval()


def distilled(bench: Bench) -> Iterator[Tried]:
    """Train the new base to give the sum on unlabelled samples of the new task."""
    batches = bench.unlabelled()
    teacher = bench.settled(Summed(bench.pair).eval(), bench.new_task)
    with torch.no_grad():
        wanted = [teacher(batch).log_softmax(1) for batch in batches]
    for rate in (LOWEST, *RATES) if bench.setting.data == "source_text" else RATES:
        student = standalone_copy(bench.pair.new_base).train().requires_grad_(True)
        adam = torch.optim.Adam(student.parameters(), rate)
        for step in range(STEPS):
            adam.param_groups[0]["lr"] = rate * (1 - step / STEPS)
            number = step % len(batches)
            outputs = student(batches[number]).log_softmax(1)
            loss = F.kl_div(outputs, wanted[number], reduction="none", log_target=True).sum(1).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        yield {"rate": rate}, student.eval()
