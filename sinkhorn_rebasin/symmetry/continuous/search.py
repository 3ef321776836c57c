"""The search for the continuous symmetries of a network that runs: what is asked, at which weights, and proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.symmetry.continuous.centering import centered_slots
from sinkhorn_rebasin.symmetry.continuous.claims import Claim, claim_of, vectors_of
from sinkhorn_rebasin.symmetry.continuous.null_vectors import Answers, add_draw, draws_needed
from sinkhorn_rebasin.symmetry.continuous.proof import Held, change_of
from sinkhorn_rebasin.symmetry.continuous.responses import responses
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import scalable_slots
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

MOST_UNITS = 8192
"""Units of the largest group whose maps are written down: 512 MiB each, in double precision."""

Slots = Mapping[str, Sequence[Slot]]


@dataclass
class Search:
    """What is known so far of the groups of one network.

    Attributes:
        reasons: per group, why it is not larger.
    """

    trials: Trials
    reasons: dict[str, str] = field(default_factory=dict)
    symmetries: list[ContinuousSymmetry] = field(default_factory=list)

    def run(self) -> ContinuousSpec:
        """Ask at weights as they are, then with vectors at one, then at zero; prove what is claimed."""
        slots = self._askable()
        left = self._ask(slots, Held())
        for value in (1, 0):
            vectors = {name: vectors_of(self.trials.spec, slots[name]) for name in left}
            again = {name: slots[name] for name in left if vectors[name] and slots[name][0].layout.size > 2}
            names = frozenset(slot.tensor for name in again for slot in vectors[name])
            left = self._ask(again, Held(names) if value else Held(zeros=names)) if again else left
        return self._proven()

    def _askable(self) -> dict[str, list[Slot]]:
        spec = self.trials.spec
        slots = {}
        for group in spec.groups:
            parts = scalable_slots(spec, group.name)
            if group.size < 2:
                self.reasons[group.name] = "it has one unit in each block, with nothing to turn it to"
            elif not parts:
                self.reasons[group.name] = "it is on no parameter"
            elif group.size > MOST_UNITS:
                memory = 8 * group.blocks * group.size**2 / 2**30
                self.reasons[group.name] = (
                    f"a map of its {group.size} units takes {memory:.1f} GiB, and {MOST_UNITS} units are the most "
                    f"that are turned: permutation"
                )
            else:
                slots[group.name] = parts
        return slots

    def _ask(self, slots: Slots, held: Held) -> list[str]:
        """Add the symmetries of these groups with some vectors held; the names of those that have none."""
        spec, rounding = self.trials.spec, self.trials.rounding
        free = {name: [s for s in parts if s.tensor not in held] for name, parts in slots.items()}
        answers = self._answers({name: parts for name, parts in free.items() if parts}, held)
        left = []
        for name, parts in free.items():
            claim: Claim | str = "it is on vectors only"
            if name in answers:
                claim = claim_of(spec, name, parts, answers[name], rounding)
            if isinstance(claim, str):
                self.reasons.setdefault(name, claim)
                left.append(name)
                continue
            symmetry = self._largest(claim, [s for s in slots[name] if s.tensor in held], held)
            if symmetry is None:
                left.append(name)
            else:
                self.symmetries.append(symmetry)
        return left

    def _answers(self, slots: Slots, held: Held) -> dict[str, Answers]:
        trials = self.trials
        random = np.random.default_rng(int(torch.randint(2**31, (), generator=trials.generator)))
        layouts = [(len(parts), parts[0].layout) for parts in slots.values()]
        needed = [draws_needed(count, layout.blocks, layout.size) for count, layout in layouts]
        answers: dict[str, Answers] = {}
        for _ in range(max(needed, default=0)):
            state = held.at(trials.weights())
            drawn = responses(trials.network, state, slots, trials.example_inputs, trials.generator)
            add_draw(answers, drawn, random)
        return answers

    def _largest(self, claim: Claim, vectors: Sequence[Slot], held: Held) -> ContinuousSymmetry | None:
        """The largest of the groups that the claim allows whose random elements change nothing."""
        claim, needed = self._with_turning(claim, vectors, held)
        names = tuple(dict.fromkeys(slot.tensor for slot in needed))
        worst = np.inf
        for linear, fixes_ones in ((True, False), (True, True), (False, False), (False, True)):
            if (linear and not claim.linear) or (fixes_ones and self.trials.spec[claim.group].size < 3):
                continue
            symmetry = replace(
                claim.symmetry(self.trials.spec, fixes_ones, linear),
                gains=() if held.zeros else names,
                shifts=names if held.zeros else (),
            )
            change = change_of(self.trials, [symmetry], 1)
            if change <= self.trials.tolerance:
                self.reasons[claim.group] = _why_not_larger(symmetry, claim)
                return replace(symmetry, centered=centered_slots(self.trials, symmetry))
            worst = min(worst, change)
        self.reasons[claim.group] = f"turns of its units change the output by {worst:.0e}: permutation"
        return None

    def _with_turning(self, claim: Claim, vectors: Sequence[Slot], held: Held) -> tuple[Claim, list[Slot]]:
        """The claim with those of the held vectors that turn with it; and those that must stay."""
        spec = self.trials.spec
        turning, staying = {}, []
        for vector in vectors:
            free = held.without(vector.tensor)
            for sign in (1, -1) if claim.linear else (1,):
                symmetry = claim.with_vectors({vector: sign}).symmetry(spec, True, claim.linear)
                if change_of(self.trials, [symmetry], 1, free) <= self.trials.tolerance:
                    turning[vector] = sign
                    break
            else:
                staying.append(vector)
        return claim.with_vectors(turning), staying

    def _proven(self) -> ContinuousSpec:
        """What holds together, one symmetry after the other where they do not all at once."""
        trials = self.trials
        error = change_of(trials, self.symmetries) if self.symmetries else 0.0
        if not error <= trials.tolerance:
            kept: list[ContinuousSymmetry] = []
            error = 0.0
            for symmetry in self.symmetries:
                change = change_of(trials, [*kept, symmetry])
                if change <= trials.tolerance:
                    kept, error = [*kept, symmetry], max(error, change)
                else:
                    self.reasons[symmetry.group.name] = (
                        f"turns of its units change the output by {change:.0e}: permutation"
                    )
            self.symmetries = kept
        order = {name: number for number, name in enumerate(trials.spec.names)}
        symmetries = sorted(self.symmetries, key=lambda one: order.get(one.group.name, len(order)))
        return ContinuousSpec(tuple(symmetries), dict(self.reasons), error)


def _why_not_larger(symmetry: ContinuousSymmetry, claim: Claim) -> str:
    if symmetry.kind == "linear":
        return "maps that move the ones vector change the output" if symmetry.fixes_ones else ""
    reason = "maps that stretch change the output"
    return reason + (", and so do turns that move the ones vector" if symmetry.fixes_ones else "")
