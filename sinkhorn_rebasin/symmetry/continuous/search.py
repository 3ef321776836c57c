"""The search for the continuous symmetries of a network that runs: what is asked, at which weights, and proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.slots import MOST_HEADS
from sinkhorn_rebasin.symmetry.continuous.branches import branches_on_data
from sinkhorn_rebasin.symmetry.continuous.centering import centered_slots
from sinkhorn_rebasin.symmetry.continuous.claims import Claim, claim_of, vectors_of
from sinkhorn_rebasin.symmetry.continuous.null_vectors import Answers, add_draw, draws_needed
from sinkhorn_rebasin.symmetry.continuous.proof import Held, change_of, first_change
from sinkhorn_rebasin.symmetry.continuous.responses import responses
from sinkhorn_rebasin.symmetry.continuous.rotary import rotary_symmetries
from sinkhorn_rebasin.symmetry.continuous.vectors import with_turning_vectors
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import scalable_slots
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

MOST_UNITS = 8192
"""Units of the largest group whose maps are written down: 512 MiB each, in double precision."""

Slots = Mapping[str, Sequence[Slot]]


@dataclass
class Search:
    """What is known so far of the groups of one network.

    Attributes:
        fold_batch_norm: hold batch norms at neutral statistics where their gain is held at one.
        reasons: per group, why it is not larger.
    """

    trials: Trials
    fold_batch_norm: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    symmetries: list[ContinuousSymmetry] = field(default_factory=list)

    def run(self) -> ContinuousSpec:
        """Ask at weights as they are, then with vectors at one, then at zero; prove what is claimed."""
        slots = self._askable()
        if slots and branches_on_data(self.trials):
            told = "the network reads numbers that differ from input to input, and may do something else for others"
            return ContinuousSpec((), self.reasons | dict.fromkeys(slots, told))
        left = self._ask(slots, Held())
        for value in (1, 0):
            vectors = {name: vectors_of(self.trials.spec, slots[name]) for name in left}
            again = {name: slots[name] for name in left if vectors[name] and slots[name][0].layout.size > 2}
            names = frozenset(slot.tensor for name in again for slot in vectors[name])
            held = Held(names, neutral=self.fold_batch_norm) if value else Held(zeros=names)
            left = self._ask(again, held) if again else left
        found, reasons = rotary_symmetries(self.trials)
        self.symmetries += found
        self.reasons.update(reasons)
        return self._proven()

    def _askable(self) -> dict[str, list[Slot]]:
        spec = self.trials.spec
        slots = {}
        for group in spec.groups:
            parts = scalable_slots(spec, group.name, MOST_HEADS)
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
        claims, left = [], []
        for name, parts in free.items():
            claim: Claim | str = "it is on vectors only"
            if name in answers:
                claim = claim_of(spec, name, parts, answers[name], rounding)
            if isinstance(claim, str):
                self.reasons.setdefault(name, claim)
                left.append(name)
            else:
                claims.append(claim)
        return left + self._settle(claims, slots, held)

    def _settle(self, claims: Sequence[Claim], slots: Slots, held: Held) -> list[str]:
        """Find what holds of these claims, all of them at once or else each alone; names of those without."""
        vectors = {one.group: [s for s in slots[one.group] if s.tensor in held] for one in claims}
        completed = with_turning_vectors(self.trials, claims, vectors, held) if held else list(claims)
        first = [self._named(*self._kinds(one)[0], slots[one.group], held) for one in completed]
        if len(first) > 1 and first_change(self.trials, first) <= self.trials.tolerance:
            for claim, symmetry in zip(completed, first, strict=True):
                self._accept(claim, symmetry)
            return []
        return [one.group for one in completed if not self._largest(one, slots[one.group], held)]

    def _answers(self, slots: Slots, held: Held) -> dict[str, Answers]:
        trials = self.trials
        random = np.random.default_rng(int(torch.randint(2**31, (), generator=trials.generator)))
        needed = {
            name: draws_needed(len(parts), parts[0].layout.blocks, parts[0].layout.size)
            for name, parts in slots.items()
        }
        answers: dict[str, Answers] = {}
        asked, draw = dict(slots), 0
        while asked:
            state = held.at(trials.weights(), trials.network)
            drawn = responses(trials.network, state, asked, trials.example_inputs, trials.generator)
            add_draw(answers, drawn, random)
            draw += 1
            asked = {
                name: parts
                for name, parts in asked.items()
                if name in drawn
                and (draw < needed[name] or answers[name].may_reach_more)
                and answers[name].may_turn(trials.rounding)
            }
        return answers

    def _kinds(self, claim: Claim) -> list[tuple[Claim, bool, bool]]:
        """What a claim allows, the largest first: the claim, whether linear, whether it fixes the ones vector."""
        kinds = [(True, False), (True, True), (False, False), (False, True)]
        several = self.trials.spec[claim.group].size > 2
        return [(claim, linear, ones) for linear, ones in kinds if claim.linear >= linear and several >= ones]

    def _named(
        self, claim: Claim, linear: bool, fixes_ones: bool, slots: Sequence[Slot], held: Held
    ) -> ContinuousSymmetry:
        """A symmetry with the names of what must be held."""
        staying = [s.tensor for s in slots if s.tensor in held and s not in claim.signs]
        names = tuple(dict.fromkeys(staying))
        symmetry = claim.symmetry(self.trials.spec, fixes_ones, linear)
        return replace(symmetry, gains=() if held.zeros else names, shifts=names if held.zeros else ())

    def _largest(self, claim: Claim, slots: Sequence[Slot], held: Held) -> bool:
        """Accept the largest of the groups that a claim allows whose random elements change nothing, if any."""
        worst = np.inf
        for kind in self._kinds(claim):
            symmetry = self._named(*kind, slots, held)
            change = first_change(self.trials, [symmetry])
            if change <= self.trials.tolerance:
                self._accept(claim, symmetry)
                return True
            worst = min(worst, change)
        self.reasons.setdefault(
            claim.group, f"turns of its units change the output by {worst:.0e}: permutation"
        )
        return False

    def _accept(self, claim: Claim, symmetry: ContinuousSymmetry) -> None:
        self.reasons.pop(claim.group, None)
        if reason := _why_not_larger(symmetry):
            self.reasons[claim.group] = reason
        self.symmetries.append(replace(symmetry, centered=centered_slots(self.trials, symmetry)))

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


def _why_not_larger(symmetry: ContinuousSymmetry) -> str:
    """In words; nothing where there is nothing larger."""
    if symmetry.kind == "linear":
        return "maps that move the ones vector change the output" if symmetry.fixes_ones else ""
    reason = "maps that stretch its units change the output"
    return reason + (", and so do turns that move the ones vector" if symmetry.fixes_ones else "")
