"""Universe matching: every network matched to the mean of all, again and again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sinkhorn_rebasin._typing import NetworkLike
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.merge_many import moved, told_by_first
from sinkhorn_rebasin.merging.states import mean_state, states_of, sum_of_products
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations


def match_to_universe(
    networks: Sequence[NetworkLike],
    spec: PermutationSpec,
    *,
    generator: torch.Generator | None = None,
    max_rounds: int = 20,
    seconds: float | None = None,
    progress: bool = False,
) -> ManyAlignment:
    r"""Match every network to a common mean.

    .. math:: \pi_m \leftarrow \arg\max_\pi \langle U, \pi(\theta_m) \rangle, \qquad
        U \leftarrow \tfrac1M \sum_m \pi_m(\theta_m)

    The universe U starts as the first network. All are matched to it, from where they are, and it becomes their mean,
    until no permutation changes. No round lowers :math:`\lVert \sum_m \pi_m(\theta_m) \rVert`.

    Args:
        networks: at least two, of one architecture, or their states; none is changed.
        spec: their symmetries, from :func:`discover_symmetry`.
        generator: draws the order of the groups; without it a fixed order of its own is used.
        max_rounds: most rounds over all networks.
        seconds: no search goes on after so many; the best so far is returned, not converged.
        progress: show a bar on standard error.

    Returns:
        All in the order of the first. Objectives are sums of products over all pairs, after each round.

    Raises:
        ArchitectureError, SpecError: fewer than two networks, or networks that differ from each other or the spec.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> match_to_universe(nets, discover_symmetry(nets[0], torch.randn(4, 3))).cycle_error()
        0.0

    Source: Theus et al., "Generalized Linear Mode Connectivity for Transformers" (2025).
    """
    states, spec = states_of(networks, spec)
    generator = generator or torch.Generator().manual_seed(0)
    watch, universe = Watch(seconds), states[0]
    orders = [identity_permutations(spec) for _ in states]
    objective: list[float] = []
    converged = False
    while not converged and len(objective) < max_rounds and not watch.expired:
        # From the first round on each search goes on from what it found.
        again = [
            weight_matching(
                universe,
                state,
                spec,
                start=order if objective else "invariants",
                generator=generator,
                seconds=seconds,
                progress=progress,
            ).permutations
            for state, order in zip(states, orders, strict=True)
        ]
        converged = bool(objective) and all(
            torch.equal(new[name], old[name]) for new, old in zip(again, orders, strict=True) for name in old
        )
        orders = [dict(order) for order in again]
        stood = moved(states, orders, spec)
        universe = mean_state(stood)
        objective.append(sum_of_products(stood, spec.compared))
    return told_by_first(orders, spec, objective, converged and not watch.expired, "universe")
