"""Weight matching: permutations that bring the weights of two networks closest, by coordinate descent."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from sinkhorn_rebasin._typing import NetworkLike, Permutations, State
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.pair_of_states import as_states, comparable_states
from sinkhorn_rebasin.matching.rotations.turned_weights import TurnedWeights
from sinkhorn_rebasin.matching.weights.beginning import MatchingStart, beginning, search_from
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent, final_objective
from sinkhorn_rebasin.matching.weights.expert_order import EXPERT_STARTS, place_experts
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, check_continuous
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING, check_rescaling


def weight_matching(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    rescaling: RescalingSpec | None = None,
    generator: torch.Generator | None = None,
    max_passes: int = 100,
    restarts: int = 1,
    start: MatchingStart = "invariants",
    symmetry: ContinuousSpec | None = None,
    ignore: Sequence[str] = (),
    seconds: float | None = None,
    progress: bool = False,
) -> Alignment:
    r"""Maximise the inner product of both networks' parameters.

    .. math:: \max_\pi \langle \theta_R, \pi(\theta_T) \rangle,
        \qquad \text{equivalently}\quad \min_\pi \lVert \theta_R - \pi(\theta_T) \rVert^2

    One group after the other, in random order, is assigned exactly with all others held, until no group
    changes. All parameters of the spec count: weights, biases and norm parameters, tied ones once; buffers do
    not. The result is a local optimum that depends on the order of the groups and on the start. From
    ``"invariants"`` every group is first matched by what no order of the groups still to come can change, their
    weights sorted: a planted permutation is then usually found at once, and networks trained apart end closer. From
    ``"identity"``, as published, the first groups are matched through neighbours whose order has nothing to do
    with the reference's.

    Units whose sign is free (tanh: all that comes in and all that goes out may be negated) are matched up to their
    sign when ``rescaling`` says which they are: a pair of units is then worth the most over the signs s,

    .. math:: \max_{s = \pm 1} \; \sum_k s^{e_k} \langle r_k[i], t_k[j] \rangle

    with k over their slots, and the alignment holds the signs too.

    Groups with a continuous symmetry are turned instead of permuted, when ``symmetry`` says which they are. The
    assignment becomes a polar decomposition,

    .. math:: \max_{R^\top R = 1} \langle R, S \rangle, \qquad R = U V^\top \quad\text{for}\quad S = U \Sigma V^\top,

    with S the same inner products of units. For linear groups both networks are balanced first: R is best where the
    slots with X and those with its inverse transpose have one Gram matrix. The map is then carried back to the
    networks as given. Whole heads are worth what the best maps inside them gain. The first run starts from what
    fixed bases pin down: a stream is turned by its embeddings and its head alone, then each group by what is known.
    Where maps stand inside heads it does so twice, the second time with all groups placed anew after each, and keeps
    the higher objective.

    Note:
        - The networks must be in canonical form: gains one. See :func:`canonicalize`.
        - Rounds end at a fixed point, or after 20.
        - The objective is that of the balanced networks.

    Args:
        reference, target: networks of one architecture, as modules, states or paths; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data: not looked at; there for the protocol of all methods.
        rescaling: from :func:`discover_rescaling`: its sign generators are used; of the positive ones, which
            weight matching does not choose, :func:`normalize_scales` takes care beforehand.
        generator: draws the order of the groups; without it a fixed order of its own is used.
        max_passes: most passes over all groups.
        restarts: how many orders to try; the alignment with the largest inner product is returned. One that could
            not catch up if all its passes gained as much as its last is given up. The second one starts from what
            fixed bases pin down: each group by the tensors whose other axes are frozen or placed.
        start: what the first pass begins with; permutations or an :class:`Alignment` to go on from are welcome.
            ``"gates"`` and ``"grams"`` are ``"invariants"`` with experts of a mixture in the order of their gates or
            of their Gram matrices, whichever order their weights would choose: see :func:`place_experts`. Maps
            of an alignment are those of ``symmetry``, and its signs those of ``rescaling``.
        symmetry: from :func:`discover_continuous`. The alignment then has maps. Of several restarts the first is
            anchored as said above, and the others begin with permutations found from ``start``. Where ``start`` is
            no ``"invariants"``, it begins the first run, and the anchored one comes second.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.
        seconds: no group is placed and no run begun after so many; the best so far is returned, not converged. What
            is being placed then is finished.
        progress: show a bar on standard error, once the search has taken a second.

    Complexity: per pass, for a group of n units whose slots hold N elements, O(n N) for the products and
    O(n³) for the assignment. Groups that share no tensor with one that moved are passed over. Use it as
    a baseline, and as the start of the Sinkhorn methods.

    Raises:
        ArchitectureError, SpecError: when the networks differ, the spec is of another one, the start unknown or of
            other symmetries, or the seconds not above zero.
        ArchitectureError: when a gain is not one under ``symmetry``; it is named.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> spec = discover_symmetry(net, torch.randn(3, 5))
        >>> planted = random_permutations(spec)
        >>> target = permute_state(net.state_dict(), spec, planted)
        >>> found = weight_matching(net, target, spec).permutations
        >>> torch.equal(found["0"], inverse(spec, planted)["0"])
        True

    Source: Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries" (2023).
    """
    generator = generator or torch.Generator().manual_seed(0)
    first, second, spec = as_states(reference, target, spec, ignore)
    first, second = comparable_states(first, second, spec)
    rescaling = NO_RESCALING if rescaling is None else rescaling
    check_rescaling(rescaling)
    if symmetry is not None:
        check_continuous(symmetry)
    begin = beginning(start, spec, rescaling, symmetry)
    standing = Standing(first, second, spec, begin.permutations, rescaling=rescaling)
    watch = Watch(seconds, progress)
    turned = TurnedWeights(standing, symmetry, watch) if symmetry is not None else None

    def run(number: int, beat: float, generator: torch.Generator) -> Alignment:
        if turned is not None and number == (0 if start == "invariants" else 1):
            return turned.anchored(generator, max_passes)
        if turned is not None and start != "invariants":
            return turned.climb_from(begin, generator, max_passes, beat)
        search = search_from(begin, standing, generator, watch)
        if start == "invariants" and turned is None and number == 1:
            search.anchor(spec.groups)
        elif start == "invariants" or start in EXPERT_STARTS:
            search.guess(spec.groups)
        if start in EXPERT_STARTS:
            place_experts(search, str(start))
        if turned is None:
            return search.climb(spec.groups, max_passes, beat)
        search.climb(spec.groups, max_passes)
        return turned.climb_from(Alignment(search.standing.permutations, spec), generator, max_passes, beat)

    with watch:
        best = run(0, -math.inf, generator)
        # The orders of a run are its own, however long the runs before it took.
        for number, own in enumerate(_spawned(generator, restarts - 1), start=1):
            if watch.expired:
                break
            best = max(best, run(number, final_objective(best), own), key=final_objective)
    return best.named("weight_matching")


def _spawned(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """Make generators that draw independently of each other."""
    seeds = torch.randint(2**62, (max(count, 0),), generator=generator, device=generator.device).tolist()
    return [torch.Generator(generator.device).manual_seed(seed) for seed in seeds]


def match_remaining(
    reference: State,
    target: State,
    spec: PermutationSpec,
    permutations: Permutations,
    names: Collection[str],
    generator: torch.Generator,
    max_passes: int = 100,
    rescaling: RescalingSpec = NO_RESCALING,
    begin: Alignment | None = None,
) -> Alignment:
    """Match the named groups by weights, all others held.

    Signs are found with them. They begin with what is given, or else with what their weights show at once. A
    named group that has groups nested in it must be named together with all of them.
    """
    groups = [group for group in spec.groups if group.name in names]
    states = comparable_states(reference, target, spec)
    if begin is None:
        search = CoordinateAscent(Standing(*states, spec, permutations, rescaling=rescaling), generator)
        search.guess(groups)
        return search.climb(groups, max_passes)
    permutations = {**permutations, **{name: begin.permutations[name] for name in names}}
    begin = replace(begin, signs={name: signs for name, signs in begin.signs.items() if name in names})
    standing = Standing(*states, spec, permutations, rescaling=rescaling)
    return search_from(begin, standing, generator).climb(groups, max_passes)
