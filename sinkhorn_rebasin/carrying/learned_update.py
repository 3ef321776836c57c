"""An update that moves with what a re-basin learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.carrying.teacher import Teacher
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.rebasin import SinkhornRebasin


class LearnedUpdate(nn.Module):
    r"""Hold a re-basin of two bases and a factor of each tensor, and the update that they carry.

    .. math:: \theta_{\mathrm{new}} + e^{f} \odot \pi_P(\theta_{\mathrm{tuned}} - \theta_{\mathrm{base}})

    Args:
        rebasin: of the base (target) with the new base (reference), in the form of the three networks.
        tuned, base, new_base: the networks.
    """

    def __init__(
        self, rebasin: SinkhornRebasin, tuned: nn.Module, base: nn.Module, new_base: nn.Module
    ) -> None:
        super().__init__()
        self.rebasin = rebasin
        names = [name for name, _ in base.named_parameters(remove_duplicate=False)]
        first, second = named_tensors(tuned), named_tensors(base)
        self.difference: State = {name: (first[name] - second[name]).detach() for name in names}
        self.start: State = {name: named_tensors(new_base)[name].detach() for name in names}
        self.logarithms = nn.Parameter(torch.zeros(len(names)))
        self._running = [
            evaluation_copy(new_base)
        ]  # in a list, so that its weights are no parameters of this one

    def state(self, hard: bool) -> State:
        """Return the new base with the update added."""
        rebasin = self.rebasin
        moved = rebasin.moved(self.difference, rebasin.permutations(hard or not rebasin.learn_permutations))
        factors = self.logarithms.exp()
        return {
            name: start + (factors[i] * moved[name]).to(start.dtype)
            for i, (name, start) in enumerate(self.start.items())
        }

    def soft_loss(self, teacher: Teacher, batch: Any) -> Tensor:
        """Return the loss at soft permutations, differentiable."""
        inputs, wanted = teacher.batch(batch)
        with untouched_randomness():
            return teacher.loss(run_at(self._running[0], self.state(hard=False), inputs), wanted)

    @torch.no_grad()
    def loss(self, teacher: Teacher, batches: Sequence[Any]) -> float:
        """Return the mean loss at hard permutations, infinite where it is not finite."""
        state, total = self.state(hard=True), 0.0
        for batch in batches:
            inputs, wanted = teacher.batch(batch)
            with untouched_randomness():
                total += float(teacher.loss(run_at(self._running[0], state, inputs), wanted))
        return total / len(batches) if math.isfinite(total) else math.inf

    def optimizer(self, scores: float, maps: float, factors: float) -> torch.optim.Optimizer:
        """Return Adam with a rate for each kind of parameter."""
        rebasin = self.rebasin
        matrices = [*rebasin.scores.parameters(), *rebasin.sign_scores.parameters()]
        groups = [
            {"params": [p for p in matrices if p.requires_grad], "lr": scores},
            {"params": [*rebasin.maps.parameters(), *rebasin.log_scales.parameters()], "lr": maps},
            {"params": [self.logarithms], "lr": factors},
        ]
        return torch.optim.Adam([group for group in groups if group["params"]])

    def fill(self, scale: float) -> None:
        """Set all factors to one scale."""
        with torch.no_grad():
            self.logarithms.fill_(math.log(scale))

    def factors(self) -> dict[str, float]:
        """Return the factor of each tensor."""
        return dict(zip(self.start, self.logarithms.detach().exp().tolist(), strict=True))

    def snapshot(self) -> State:
        """Copy what is learned."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def restore(self, snapshot: State) -> None:
        """Put a copy back."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(snapshot[name])
