"""MergeMany: each network matched to the mean of the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from sinkhorn_rebasin._typing import NetworkLike, Permutations, State
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.states import mean_state, states_of, sum_of_products
from sinkhorn_rebasin.permutations import PermutationSpec, compose, inverse, permute_state


def match_to_mean(
    networks: Sequence[NetworkLike],
    spec: PermutationSpec,
    *,
    generator: torch.Generator | None = None,
    max_rounds: int = 20,
    seconds: float | None = None,
    progress: bool = False,
    start: Sequence[Permutations] | None = None,
) -> ManyAlignment:
    r"""Match each network to the mean of the others.

    .. math:: \max_{\pi_1, \dots, \pi_M} \sum_{p < q} \langle \pi_p(\theta_p), \pi_q(\theta_q) \rangle

    Each further network is first matched to the first. Then, in rounds of random order, each one is matched to the
    mean of all others as they stand,

    .. math:: \max_{\pi_m} \Bigl\langle \tfrac{1}{M - 1} \sum_{q \ne m} \pi_q(\theta_q),\; \pi_m(\theta_m)
        \Bigr\rangle,

    until no permutation changes. No round lowers the sum.

    Args:
        networks: at least two, of one architecture, or their states; none is changed.
        spec: their symmetries, from :func:`discover_symmetry`.
        generator: draws all orders; without it a fixed order of its own is used.
        max_rounds: most rounds over all networks.
        seconds: no search goes on after so many; the best so far is returned, not converged.
        progress: show a bar on standard error.
        start: permutations of each network to go on from.

    Returns:
        All in the order of the first. Objectives are the sums after each round.

    Raises:
        ArchitectureError, SpecError: fewer than two networks, or networks that differ from each other or the spec.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> alignments = match_to_mean(nets, discover_symmetry(nets[0], torch.randn(4, 3)))
        >>> len(alignments), alignments[0].permutations["0"].tolist()
        (3, [0, 1, 2, 3, 4, 5, 6, 7])

    Source: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023), algorithm 3, MergeMany.
    """
    states, spec = states_of(networks, spec)
    generator = generator or torch.Generator().manual_seed(0)
    watch, count = Watch(seconds), len(states)
    match = partial(
        weight_matching, spec=spec, generator=generator, seconds=seconds, progress=progress, max_passes=100
    )
    if start is None:
        stays = weight_matching(states[0], states[0], spec, start="identity", generator=generator)
        orders = [stays.permutations, *(match(states[0], state).permutations for state in states[1:])]
    else:
        orders = list(start)
    objective = [sum_of_products(moved(states, orders, spec), spec.compared)]
    converged = count == 2 and start is None
    while not converged and len(objective) <= max_rounds and not watch.expired:
        converged = True
        for number in torch.randperm(count, generator=generator, device=generator.device).tolist():
            others = [other for other in range(count) if other != number]
            mean = mean_state(moved([states[o] for o in others], [orders[o] for o in others], spec))
            again = match(mean, states[number], start=orders[number]).permutations
            converged &= all(torch.equal(again[name], order) for name, order in orders[number].items())
            orders[number] = again
        objective.append(sum_of_products(moved(states, orders, spec), spec.compared))
    return told_by_first(orders, spec, objective, converged and not watch.expired, "merge_many")


def moved(states: Sequence[State], orders: Sequence[Permutations], spec: PermutationSpec) -> list[State]:
    """Return the states in their new order."""
    return [permute_state(state, spec, order) for state, order in zip(states, orders, strict=True)]


def told_by_first(
    orders: Sequence[Permutations],
    spec: PermutationSpec,
    objective: Sequence[float],
    converged: bool,
    method: str,
) -> ManyAlignment:
    """Tell permutations into any common order as those into the first network's."""
    back = inverse(spec, orders[0])
    alignments = tuple(
        Alignment(compose(spec, back, order), spec, converged=converged, method=method) for order in orders
    )
    return ManyAlignment(alignments, tuple(objective), converged, method)
