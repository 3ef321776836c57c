"""The search of weight matching: one group after the other placed exactly, with all others held."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.assignment.assignment_potentials import sweeping_potentials
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.rotations.polar import best_rotation
from sinkhorn_rebasin.matching.weights.anchored_start import placed_alone, share, understood
from sinkhorn_rebasin.matching.weights.neighbors import Settled
from sinkhorn_rebasin.matching.weights.nested_groups import Proposal, flips_of, place_blocks
from sinkhorn_rebasin.matching.weights.similarity import inner_product, signed_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.permutations import Group, PermutationSpec, rescale_state
from sinkhorn_rebasin.permutations.action import permute_tensor
from sinkhorn_rebasin.permutations.algebra import block_movement

LEAST_GAIN = 1e-9
"""Of the size of what is added up: less is round-off."""

WIDE, SWEEPS, SWEEPS_AGAIN = 1024, 6, 3
"""Units from which potentials pay, and how many sweeps find them, at first and from those of the last pass."""


class CoordinateAscent:
    r"""Move permutations, signs and maps uphill.

    .. math:: \langle \theta_R, \pi(\sigma(\theta_T)) \rangle

    Attributes:
        standing: both networks, the target with the signs found so far, and the permutations found so far. Those of
            groups with a continuous symmetry are orthogonal matrices.
        signs: those found so far, of the target's units in their original order.
        settled: groups that no pass needs to look at, since nothing changed that they are placed by.
        watch: ends the search when its time is up.
        potentials: of wide groups, the columns' when they were last assigned, (blocks, n).
    """

    def __init__(self, standing: Standing, generator: torch.Generator, watch: Watch | None = None) -> None:
        self.standing, self.generator = standing, generator
        self.settled, self.watch = Settled(standing.spec), watch or Watch()
        self.potentials: dict[str, Tensor] = {}
        self.signs = {
            name: torch.ones(shape, dtype=torch.float64, device="cpu")
            for name, shape in standing.rescaling.shapes(standing.spec, "sign").items()
        }

    def guess(self, groups: Sequence[Group]) -> None:
        """Place these groups once, those to come by invariants.

        The order is random. Groups still to come are seen through what their order cannot change. Networks that are
        already closer as they are, such as two that were tuned from one, stay as they are.
        """
        found, unknown = copy.copy(self), {group.name for group in groups}
        found.settled = Settled(self.standing.spec)
        order = self._shuffled(groups)
        self.watch.begin("first guess", len(order))
        while order and not self.watch.expired:
            group = next(each for each in order if each.parent not in unknown)
            family = {each.name for each in found.standing.placed_with(group)}
            found.accept(found._proposal(group, replace(found.standing, unknown=frozenset(unknown)))[0])
            unknown -= family
            found._settle(family, besides=unknown)
            order = [each for each in order if each.name in unknown]
            self.watch.step(group.name, len(family))
        if found.value(found.standing.spec.shapes) > self.value(self.standing.spec.shapes):
            vars(self).update(vars(found))

    def anchor(self, groups: Sequence[Group], *, anew: bool = False) -> None:
        """Place these groups once, the best understood next.

        A group is placed by the tensors whose other axes are frozen or already placed. First comes what fixed bases
        pin down: a stream between embeddings and a head. A group without such a tensor stays as it is. Among equals
        heads with maps inside come last, since maps fit any stream.

        Args:
            groups: all of them.
            anew: whether, after each, those that came before it are placed anew by what is now known. Heads are then
                placed by all they have, as nothing holds the stream.
        """
        waiting, whole = {group.name for group in groups}, self.standing.spec
        turned = () if anew else self.standing.continuous
        placed: list[Group] = []
        while waiting and not self.watch.expired:
            free = [group for group in groups if group.name in waiting and group.parent not in waiting]
            together, spec = max(
                ((family, understood(whole, family, waiting, turned)) for family in map(self._family, free)),
                key=lambda pair: (share(whole, *pair), not self._maps_inside(pair[0])),
            )
            if share(whole, together, spec):
                self.accept(self._proposal(together[0], replace(self.standing, spec=spec))[0])
            waiting -= {group.name for group in together}
            placed.append(together[0])
            if anew:
                self._place_anew(placed, placed_alone(whole, waiting))

    def _maps_inside(self, family: Sequence[Group]) -> bool:
        """Tell whether blocks of a family are turned inside."""
        return any(group.parent is not None and group.name in self.standing.continuous for group in family)

    def _place_anew(self, groups: Sequence[Group], spec: PermutationSpec) -> None:
        """Go over groups once.

        Only the slots of a spec count.
        """
        whole = self.standing.spec
        self.standing = replace(self.standing, spec=spec)
        for group in groups:
            if not self.watch.expired:
                self._improve(group)
        self.standing, self.settled = replace(self.standing, spec=whole), Settled(whole)

    def climb(self, groups: Sequence[Group], max_passes: int, beat: float = -math.inf) -> Alignment:
        """Place these groups until none can be placed better.

        A climb is given up once it would stay below ``beat``, were all passes left to gain as much as the last.
        """
        objective: list[float] = []
        converged = not groups
        while not converged and len(objective) < max_passes and not _is_behind(objective, max_passes, beat):
            improved = False
            self.watch.begin(f"pass {len(objective) + 1}", len(groups))
            for group in self._shuffled(groups):
                if self.watch.expired:
                    break
                improved |= group.name not in self.settled and self._improve(group)
                self.watch.step(group.name)
            objective.append(self.value(self.standing.spec.shapes))
            if self.watch.expired:
                break
            converged = not improved
        standing = self.standing
        return Alignment(
            dict(standing.permutations),
            standing.spec,
            tuple(objective),
            converged,
            (),
            self.signs,
            standing.rescaling,
        )

    def value(self, names: Iterable[str], proposal: Proposal | None = None) -> float:
        """Take the inner product over the named tensors.

        As things stand, or as they would with a proposal.
        """
        standing = self.standing
        proposal = proposal or Proposal(dict(standing.permutations), {})
        names = sorted(set(names) & standing.spec.compared.keys())
        target = self._flipped(proposal)
        total = 0.0
        for name in names:
            moved = permute_tensor(target[name], standing.spec.slots_on(name), proposal.permutations)
            total += inner_product(standing.reference[name], moved)
        return total

    def _improve(self, group: Group) -> bool:
        """Place a group while the others are held.

        Returns:
            Whether anything was gained.
        """
        proposal, gain, size = self._proposal(group, self.standing)
        self.settled.place([group.name])
        if gain is not None and not gain > LEAST_GAIN * size:
            return False
        spec = self.standing.spec
        tensors = [slot.tensor for each in self._family(group) for slot in spec.slots_of(each.name)]
        if gain is None or len(set(tensors)) < len(tensors):
            # Where a group stands on two axes of one tensor the product is quadratic and the gain only its slope.
            before, after = self.value(tensors), self.value(tensors, proposal)
            if not after - before > LEAST_GAIN * (abs(after) if gain is None else size):
                return False
        self.accept(proposal)
        self._settle({each.name for each in self._family(group)})
        return True

    def _proposal(self, group: Group, standing: Standing) -> tuple[Proposal, float | None, float]:
        """Find the best place of a group.

        Returns:
            The place, what it gains if that is known, and the size of what was added up.
        """
        if len(standing.placed_with(group)) > 1:
            return place_blocks(standing, group), None, 0.0
        similarity = signed_similarity(standing, group)
        blocks = block_movement(standing.spec, standing.permutations, group)
        if group.name in standing.continuous:
            return _turned(standing, group, similarity[0], blocks)
        best, pattern = (similarity[0], None) if len(similarity) == 1 else similarity.max(0)
        current = standing.permutations[group.name].reshape(group.blocks, group.size)[blocks].cpu()
        units = self._assigned(group, best).cpu()
        gain = float((_picked(best, units) - _picked(similarity[0], current)).sum())
        moved = torch.empty_like(units)
        moved[blocks] = units
        patterns = standing.patterns(group.name)
        flips = {}
        if pattern is not None:
            chosen = flips_of(patterns, _picked(pattern, units), blocks, units)
            flips[group.name] = chosen.reshape(-1, *group.shape)
        proposal = Proposal({**standing.permutations, group.name: moved.reshape(group.shape)}, flips)
        return proposal, gain, float(torch.linalg.vector_norm(best, 1))

    def _assigned(self, group: Group, best: Tensor) -> Tensor:
        """Assign the units of every block, from the potentials of the last pass."""
        if best.shape[-1] < WIDE:
            return hard_assignment(best)
        known = self.potentials.get(group.name)
        sweeps = SWEEPS if known is None else SWEEPS_AGAIN
        starts = [None] * len(best) if known is None else list(known)
        found = [sweeping_potentials(*pair, sweeps) for pair in zip(best, starts, strict=True)]
        self.potentials[group.name] = torch.stack(found)
        return hard_assignment(best, self.potentials[group.name])

    def _settle(self, family: set[str], besides: Iterable[str] = ()) -> None:
        """Note that a family was placed, by itself and by groups that are known, but for those besides."""
        if not self.settled.depends(family, {*family, *besides}):
            self.settled.place(family)

    def accept(self, proposal: Proposal) -> None:
        """Move permutations, maps and signs to what is proposed."""
        before = self.standing.permutations
        moved = [name for name, order in proposal.permutations.items() if order is not before[name]]
        self.settled.move(moved, everything=bool(proposal.flips))
        self.standing = replace(
            self.standing, target=self._flipped(proposal), permutations=proposal.permutations
        )
        self.signs = {
            **self.signs,
            **{name: self.signs[name] * flips for name, flips in proposal.flips.items()},
        }

    def _flipped(self, proposal: Proposal) -> State:
        target = self.standing.target
        if not proposal.flips:
            return target
        moved = rescale_state(target, self.standing.spec, self.standing.rescaling, signs=proposal.flips)
        return {name: tensor.to(target[name].dtype) for name, tensor in moved.items()}

    def _family(self, group: Group) -> list[Group]:
        return self.standing.placed_with(group)

    def _shuffled(self, groups: Sequence[Group]) -> list[Group]:
        drawn = torch.randperm(len(groups), generator=self.generator, device=self.generator.device)
        return [groups[index] for index in drawn.tolist()]


def final_objective(alignment: Alignment) -> float:
    """Return the objective where a run ended."""
    return alignment.objective[-1] if alignment.objective else 0.0


def _is_behind(objective: Sequence[float], passes: int, beat: float) -> bool:
    """Tell whether passes that gain as much as the last one end too low.

    >>> _is_behind([1.0, 3.0, 4.0], passes=6, beat=8.0), _is_behind([1.0, 3.0, 4.0], passes=6, beat=7.0)
    (True, False)
    """
    if len(objective) < 2:
        return False
    pace = objective[-1] - objective[-2]
    return objective[-1] + pace * (passes - len(objective)) < beat


def _turned(
    standing: Standing, group: Group, similarity: Tensor, blocks: Tensor
) -> tuple[Proposal, float, float]:
    """Turn every block by its best orthogonal map."""
    matrices = standing.permutations[group.name].reshape(group.blocks, group.size, group.size)
    rotations = best_rotation(similarity, standing.continuous[group.name])
    gain = float(((rotations - matrices[blocks]) * similarity).sum())
    turned = torch.empty_like(rotations).index_copy(0, blocks, rotations)
    turned = turned.reshape(*group.shape, group.size)
    return (
        Proposal({**standing.permutations, group.name: turned}, {}),
        gain,
        float((rotations * similarity).sum()),
    )


def _picked(table: Tensor, units: Tensor) -> Tensor:
    return table.gather(-1, units[..., None]).squeeze(-1)
