"""Learned: soft permutations and maps are trained until the carried update does well on a few examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.carrying.along_alignment import canonical_form, carried_along, in_shape_of_new
from sinkhorn_rebasin.carrying.by_weights import signs_alone
from sinkhorn_rebasin.carrying.learned_update import LearnedUpdate
from sinkhorn_rebasin.carrying.teacher import Followed, Teacher
from sinkhorn_rebasin.carrying.update_inputs import inputs_of_update
from sinkhorn_rebasin.carrying.way import Carried, CarryProblem
from sinkhorn_rebasin.front.canonical_pair import canonical_pair
from sinkhorn_rebasin.matching import Alignment, activation_matching, weight_matching
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry

STARTING_SCALES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Learned:
    r"""Carry by an alignment that is trained for the update itself.

    .. math:: \min_{P, s} \sum_{(x, y)} \ell\bigl(f(x;\, \theta_{\mathrm{new}} +
        s \odot (\pi_P(\theta_{\mathrm{tuned}}) - \pi_P(\theta_{\mathrm{base}}))),\, y\bigr)

    with P the soft permutations of a :class:`SinkhornRebasin`, or its maps where there are continuous symmetries, and
    s a factor of each tensor. Labels and a criterion give :math:`\ell`; without a criterion a teacher is followed. At
    the end P is hard. What is best on held-out examples is kept, the start among it: matching by weights or by
    activations, whichever does better. Without data, inputs are drawn: see :func:`inputs_of_update`.

    Attributes:
        steps: of Adam, a batch each.
        learning_rate: of scores.
        map_learning_rate: of maps; it falls to zero by a cosine.
        factor_learning_rate: of the logarithms of the factors; zero leaves all of them equal.
        temperatures: at the first and the last step.
        evaluate_every: steps between evaluations on held-out examples.
        follow: who is followed without a criterion: the tuned network, or the sum new base + tuned - base of outputs.
        synthetic: share of what the update shows that is added to given inputs.
        symmetry: ``"full"``, or ``"permutation"`` to leave maps out.

    Example:
        >>> Learned(steps=50).name
        'learned'
    """

    steps: int = 300
    learning_rate: float = 0.05
    map_learning_rate: float = 0.01
    factor_learning_rate: float = 0.02
    temperatures: tuple[float, float] = (0.2, 0.05)
    evaluate_every: int = 25
    follow: Followed = "tuned"
    synthetic: float = 0.0
    symmetry: RequestedSymmetry = "full"

    @property
    def name(self) -> str:
        """Name the way."""
        return "learned"

    def carried(self, problem: CarryProblem) -> Carried:
        """Return the update for the new base."""
        problem, drawn = inputs_of_update(problem, self.synthetic)
        problem.seen(self.name)
        teacher = Teacher(problem, self.follow)
        held_out = problem.held_out or problem.batches
        learned, continuous, notes = self._start(problem, teacher)
        best, kept = learned.loss(teacher, held_out), learned.snapshot()
        first = best
        optimizer = learned.optimizer(self.learning_rate, self.map_learning_rate, self.factor_learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        temperature = geometric(*self.temperatures)
        for step in range(self.steps):
            learned.rebasin.temperature.fill_(temperature(step / max(1, self.steps - 1)))
            with torch.enable_grad():
                loss = learned.soft_loss(teacher, problem.batches[step % len(problem.batches)])
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % self.evaluate_every == 0 or step + 1 == self.steps:
                now = learned.loss(teacher, held_out)
                if now < best:
                    best, kept = now, learned.snapshot()
        learned.restore(kept)
        told = f"loss on held-out examples {first:.4g} at the start, {best:.4g} at the end"
        if best == first:
            told = "the start is kept, as nothing that was learned does better on held-out examples"
        alignment = learned.rebasin.alignment()
        carried = carried_along(problem, alignment, bool(continuous), (*notes, *drawn, told))
        factors = learned.factors()
        return Carried(_multiplied(carried.state, factors), carried.frame, carried.notes)

    def _start(
        self, problem: CarryProblem, teacher: Teacher
    ) -> tuple[LearnedUpdate, ContinuousSpec, tuple[str, ...]]:
        """Return the best of several alignments and scales."""
        tuned, base, new_base = in_shape_of_new(problem)
        wanted = self.symmetry if problem.same_widths else "permutation"
        given = problem.alignment
        if given is not None:
            wanted = given.continuous or "permutation"
        first, second, continuous, notes = canonical_pair(
            new_base, base, problem.new_spec, wanted, problem.example_inputs
        )
        starts = [given] if given is not None else _starts(problem, first, second, continuous)
        if continuous:
            tuned = canonical_form(tuned, starts[0], problem)
        best: tuple[float, LearnedUpdate] | None = None
        for start in starts:
            rebasin = SinkhornRebasin(
                first,
                second,
                spec=problem.new_spec,
                start=start,
                symmetry=continuous or "permutation",
                rescale=start.rescaling or False,
                check=False,
            )
            learned = LearnedUpdate(rebasin, tuned, second, first)
            for scale in STARTING_SCALES:
                learned.fill(scale)
                loss = learned.loss(teacher, problem.held_out or problem.batches)
                if best is None or loss < best[0]:
                    best = loss, learned
                    kept = scale
        assert best is not None
        best[1].fill(kept)
        return best[1], continuous, notes


def _starts(
    problem: CarryProblem, first: nn.Module, second: nn.Module, continuous: ContinuousSpec
) -> list[Alignment]:
    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(problem.seed)

    signs = signs_alone(problem, continuous)
    by_weights = weight_matching(
        *(first, second, problem.new_spec),
        rescaling=signs,
        symmetry=continuous or None,
        generator=drawn(),
    )
    by_activations = activation_matching(
        *(first, second, problem.new_spec),
        data=problem.batches,
        rescaling=signs,
        symmetry=continuous or None,
        batch=problem.batch,
        generator=drawn(),
    )
    return [by_weights, by_activations]


def _multiplied(state: State, factors: Mapping[str, float]) -> State:
    return {name: tensor * factors.get(name, 1.0) for name, tensor in state.items()}
