"""The sum of three networks' outputs, and that sum distilled into the new base."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.carry.bench import Bench, Tried
from sinkhorn_rebasin.networks.copying import standalone_copy

RATES = (3e-4, 1e-3, 3e-3)
LOWEST = 1e-4
STEPS = 300
SCALES = (0.5, 0.75, 1.0, 1.25)


def summed(bench: Bench, inputs: Tensor, scale: float = 1.0) -> Tensor:
    """Return the outputs of the new base plus those of the tuned network minus those of its base."""
    pair = bench.pair
    output: Tensor = pair.new_base(inputs) + scale * (pair.tuned(inputs) - pair.base(inputs))
    return output


def sum_of_logits(bench: Bench) -> Iterator[Tried]:
    """Give the sum at several scales: three networks at every call."""
    for scale in SCALES:
        yield {"scale": scale}, lambda inputs, scale=scale: summed(bench, inputs, scale)


def distilled(bench: Bench) -> Iterator[Tried]:
    """Train the new base to give the sum on unlabelled samples of the new task."""
    batches = bench.unlabelled()
    with torch.no_grad():
        wanted = [summed(bench, batch).log_softmax(1) for batch in batches]
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
