"""A step on a Llama-like feed-forward layer, beside the dense products that any dense step needs."""

from __future__ import annotations

import resource
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin, WeightDistance
from sinkhorn_rebasin.permutations import (
    Group,
    Layout,
    PermutationSpec,
    Slot,
    permute_state,
    random_permutations,
)

ROWS = 1024
"""Rows of the dense matrix that are multiplied; a product costs as many times more as it has more rows."""


class FeedForward(nn.Module):
    """Gate, up and down, as in Llama."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(features, width, bias=False) for _ in range(2))
        self.down = nn.Linear(width, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer."""
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def planted_pair(
    width: int, features: int, noise: float
) -> tuple[nn.Module, nn.Module, PermutationSpec, Tensor]:
    """Return a layer, the layer in another order with noise, the symmetry and the way back."""
    torch.manual_seed(0)
    reference, target = FeedForward(features, width), FeedForward(features, width)
    places = (("gate.weight", 0), ("up.weight", 0), ("down.weight", 1))
    slots = tuple(Slot("units", tensor, (axis,), Layout(1, width)) for tensor, axis in places)
    shapes = {name: tuple(value.shape) for name, value in reference.state_dict().items()}
    spec = PermutationSpec((Group("units", width),), slots, shapes)
    there = random_permutations(spec)
    target.load_state_dict(permute_state(reference.state_dict(), spec, there))
    with torch.no_grad():
        for weight in target.parameters():
            weight += noise * weight.std() * torch.randn_like(weight)
    return reference, target, spec, there["units"].argsort()


def measure(
    width: int, candidates: int, steps: int, features: int = 1024, noise: float = 1.0
) -> dict[str, Any]:
    """Train on candidates, and multiply by a part of a dense matrix after each step.

    Seconds are of the processor. A dense step needs two products with each of the three weights: one of its value
    and one of its gradient.
    """
    torch.set_num_threads(1)
    reference, target, spec, back = planted_pair(width, features, noise)
    weight = reference.gate.weight.detach()
    rebasin = SinkhornRebasin(
        reference, target, spec=spec, start="identity", candidates=candidates, check=False
    )
    # Gradients of a mean over millions of weights are far below Adam's usual eps.
    optimizer, loss = torch.optim.Adam(rebasin.parameters(), lr=1.0, eps=1e-30), WeightDistance("l2")
    rows, seconds, dense = torch.rand(min(ROWS, width), width), [], []
    for _ in range(steps):
        started = time.process_time()
        optimizer.zero_grad()
        loss(rebasin).backward()
        optimizer.step()
        seconds.append(time.process_time() - started)
        started = time.process_time()
        rows @ weight
        dense.append((time.process_time() - started) * width / len(rows) * 6)
    # The first two steps look candidates up, and order them anew.
    ratios = [other / own for own, other in zip(seconds[2:], dense[2:], strict=True)]
    (scores,) = rebasin.scores.parameters()
    state = [scores, *(value for value in optimizer.state[scores].values()), *rebasin.candidates.buffers()]
    state += [scores.grad, *rebasin.scalings.buffers()]
    started = time.process_time()
    order = rebasin.hard_permutations()["units"]
    return {
        "width": width,
        "candidates": candidates,
        "step (s)": statistics.median(seconds[2:]),
        "look-up step (s)": seconds[0],
        "steps between look-ups": rebasin.candidates.interval,
        "dense products (s)": statistics.median(dense),
        "ratio": statistics.median(ratios),
        "least ratio": min(ratios),
        "largest ratio": max(ratios),
        "score state (MB)": sum(tensor.nbytes for tensor in state) / 1e6,
        "hard assignment (s)": time.process_time() - started,
        "recovered": float((order == back).double().mean()),
        "steps": steps,
        "peak memory (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
