"""Several networks matched by their weights, and their mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.frank_wolfe import match_by_frank_wolfe
from sinkhorn_rebasin.merging.fusing import Fusion
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.merge_many import match_to_mean
from sinkhorn_rebasin.merging.states import states_of
from sinkhorn_rebasin.merging.universe import match_to_universe
from sinkhorn_rebasin.permutations import PermutationSpec

ManyMethod = Literal["merge_many", "universe", "frank_wolfe"]
METHODS = {"merge_many": match_to_mean, "universe": match_to_universe, "frank_wolfe": match_by_frank_wolfe}


def match_many(
    networks: Sequence[NetworkLike],
    spec: PermutationSpec,
    *,
    method: ManyMethod = "merge_many",
    generator: torch.Generator | None = None,
    max_rounds: int | None = None,
    seconds: float | None = None,
    progress: bool = False,
) -> ManyAlignment:
    r"""Match several networks by their weights.

    .. math:: \max_{\pi_1, \dots, \pi_M} \sum_{p < q} \langle \pi_p(\theta_p), \pi_q(\theta_q) \rangle

    All methods raise this sum. ``"merge_many"`` matches each network to the mean of the others,
    ``"universe"`` all to the mean of all, and ``"frank_wolfe"`` moves all permutations together.

    Args:
        networks: at least two, of one architecture, or their states; none is changed.
        spec: their symmetries, from :func:`discover_symmetry`.
        method: how they are found.
        generator: draws all orders; without it a fixed order of its own is used.
        max_rounds: most rounds; None: the method's own number.
        seconds: no search goes on after so many; the best so far is returned, not converged.
        progress: show a bar on standard error.

    Returns:
        One alignment a network, into the order of the first, whose own is the identity: the way from p to q over r
        is the way from p to q.

    Raises:
        ArchitectureError, SpecError: fewer than two networks, or networks that differ from each other or the spec;
            an unknown method.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> aligned = match_many(nets, discover_symmetry(nets[0], torch.randn(4, 3)), method="frank_wolfe")
        >>> len(aligned), aligned[0].permutations["0"].tolist(), aligned.cycle_error()
        (3, [0, 1, 2, 3, 4, 5, 6, 7], 0.0)
    """
    if method not in METHODS:
        raise ArchitectureError(f"Expected method to be one of {', '.join(METHODS)} but got {method!r}.")
    rounds = {} if max_rounds is None else {"max_rounds": max_rounds}
    states, spec = states_of(networks, spec)
    return METHODS[method](states, spec, generator=generator, seconds=seconds, progress=progress, **rounds)


def merge_many(
    networks: Sequence[NetworkLike],
    alignments: Sequence[Alignment],
    shares: Sequence[float] | None = None,
    *,
    fusion: Fusion = "mean",
    data: Sequence[Any] | None = None,
    batch: BatchAdapter | None = None,
) -> State:
    r"""Return a mean of aligned networks, or a fit.

    .. math:: \theta = \sum_m w_m\, \pi_m(\theta_m), \qquad \sum_m w_m = 1

    See :meth:`ManyAlignment.merge`.

    Args:
        networks: of one architecture, or their states.
        alignments: one a network, from :func:`match_many`.
        shares: w, one a network; equal without it.
        fusion, data, batch: as for :meth:`ManyAlignment.merge`.

    Raises:
        ArchitectureError: not one alignment and one share a network, or shares that do not add up to 1.
        DataError: a fusion without data, or with such that it cannot use.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> alignments = match_many([net, net], discover_symmetry(net, torch.randn(4, 3)))
        >>> torch.equal(merge_many([net, net], alignments)["0.weight"], net[0].weight)
        True
    """
    options: dict[str, Any] = {"fusion": fusion, "data": data, "batch": batch}
    given = tuple(alignments) if isinstance(alignments, Iterable) else alignments
    merged: State = ManyAlignment(given).merge(networks, shares, **options)
    return merged
