"""Distilled: the new base, with what was carried, is trained to answer as the tuned network does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.carrying.along_alignment import in_shape_of_new
from sinkhorn_rebasin.carrying.by_weights import ByWeights
from sinkhorn_rebasin.carrying.teacher import Followed, Teacher
from sinkhorn_rebasin.carrying.update import wide
from sinkhorn_rebasin.carrying.update_inputs import inputs_of_update, text_beside
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem, Way
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import evaluation_copy, standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness

STARTING_SCALES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Distilled:
    r"""Train the carried start to follow the tuned network.

    .. math:: \min_{\Delta} \sum_x \mathrm{KL}\bigl(\mathrm{softmax} f(x;\, \theta_{\mathrm{tuned}}) \,\|\,
        \mathrm{softmax} f(x;\, \theta_{\mathrm{new}} + \Delta)\bigr)

    from the update that another way carries, or from zero where that does better. Parameters that the fine-tune left
    alone stay. What is best on held-out examples is kept, the start among it. Where no map of coordinates carries an
    update, as between language models of different seeds, answers do.

    - Without data a language model writes its own: see :func:`inputs_of_update`.
    - It takes gradients of the whole network, which no other way does.
    - Few data are learned by heart, so a language model adds text of its own to given data.
    - Labels are not looked at. With a criterion they decide the scale, as for every way.

    Attributes:
        start: the way that carries first; None begins at the new base.
        steps: of Adam, a batch each.
        learning_rate: falls to zero along a line.
        evaluate_every: steps between evaluations on held-out examples.
        follow: who is followed: the tuned network, or the sum new base + tuned - base of outputs.
        drawn: windows of text that a language model writes, beside given data too; with zero only where there are
            none, fewer.

    Example:
        >>> Distilled(steps=50).name
        'distilled'

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015); that the tuned network
    writes the text is this package's.
    """

    start: Way | None = field(default_factory=ByWeights)
    steps: int = 300
    learning_rate: float = 3e-4
    evaluate_every: int = 25
    follow: Followed = "tuned"
    drawn: int = 512

    @property
    def name(self) -> str:
        """Name the way."""
        return "distilled"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        if problem.heads:
            raise LossError(
                f"Expected networks of the same labels, whose outputs can be followed, but {problem.heads[0]!r} is a "
                f"head of others: carry by another way."
            )
        carried = Carried({}) if self.start is None else self.start.carried(problem)
        problem, notes = self._with_text(replace(problem, criterion=None))
        problem.seen(self.name)
        teacher = Teacher(problem, self.follow)
        held_out = problem.held_out or problem.batches
        new_base = in_shape_of_new(problem)[2]
        states = {scale: _added(new_base, carried, scale) for scale in STARTING_SCALES if carried.state}
        states[0.0] = {name: tensor.detach() for name, tensor in named_tensors(new_base).items()}
        student = evaluation_copy(standalone_copy(new_base))
        losses = {scale: _loss(student, state, teacher, held_out) for scale, state in states.items()}
        scale = min(losses, key=lambda tried: losses[tried])
        state, last = self._trained(student, states[scale], problem, teacher, held_out, losses[scale])
        told = (
            f"loss on held-out examples {losses[0.0]:.4g} at the new base, {losses[scale]:.4g} with the carried "
            f"start at scale {scale:g}, {last:.4g} at the end"
        )
        frame = carried.frame if scale else {}
        before = {**states[0.0], **frame}
        update = {
            name: wide(state[name]) - wide(before[name])
            for name, _ in new_base.named_parameters(remove_duplicate=False)
        }
        return Carried(update, frame, (*(carried.notes if scale else ()), *notes, told), fitted=True)

    def _with_text(self, problem: CarryProblem) -> tuple[CarryProblem, tuple[str, ...]]:
        """Add text, or draw inputs.

        A language model writes the text; inputs are drawn where there are none.
        """
        if self.drawn:
            problem, notes = text_beside(problem, self.drawn)
            if notes:
                return problem, notes
        return inputs_of_update(problem, 0.0)

    def _trained(
        self,
        student: nn.Module,
        start: State,
        problem: CarryProblem,
        teacher: Teacher,
        held_out: Sequence[Any],
        best: float,
    ) -> tuple[State, float]:
        """Train what the fine-tune changed.

        The best state is returned with its loss.
        """
        with torch.no_grad():
            for name, tensor in named_tensors(student).items():
                tensor.copy_(start[name])
        changed = [
            parameter.requires_grad_(bool(problem.update.difference.get(name, torch.ones(1)).any()))
            for name, parameter in student.named_parameters()
        ]
        adam = torch.optim.Adam([each for each in changed if each.requires_grad], self.learning_rate)
        kept = start
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.steps)
            inputs, wanted = teacher.batch(problem.batches[step % len(problem.batches)])
            with torch.enable_grad(), untouched_randomness():
                loss = teacher.loss(run_at(student, {}, inputs), wanted)
                adam.zero_grad()
                loss.backward()
            adam.step()
            if (step + 1) % self.evaluate_every == 0 or step + 1 == self.steps:
                state = {name: tensor.detach() for name, tensor in named_tensors(student).items()}
                now = _loss(student, state, teacher, held_out)
                if now < best:
                    best, kept = now, {name: tensor.clone() for name, tensor in state.items()}
        return kept, best


def _added(new_base: nn.Module, carried: Carried, scale: float) -> State:
    """Return the new base with the update added.

    Its tensors have the form of an update.
    """
    start = {name: tensor.detach() for name, tensor in named_tensors(new_base).items()} | carried.frame
    return {
        name: (wide(tensor) + scale * wide(carried.state[name])).to(tensor.dtype)
        if name in carried.state
        else tensor
        for name, tensor in start.items()
    }


@torch.no_grad()
def _loss(network: nn.Module, state: State, teacher: Teacher, batches: Sequence[Any]) -> float:
    """Return the mean loss at a state.

    It is infinite where it is not finite.
    """
    total = 0.0
    for batch in batches:
        inputs, wanted = teacher.batch(batch)
        with untouched_randomness():
            total += float(teacher.loss(run_at(network, state, inputs), wanted))
    return total / len(batches) if math.isfinite(total) else math.inf
