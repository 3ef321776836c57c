"""How aligned networks become one: the choice among plain means and fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.aligned_networks import AlignedNetworks
from sinkhorn_rebasin.merging.fisher_mean import fisher
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.merging.regmean_plus_plus import regmean_plus_plus
from sinkhorn_rebasin.merging.regression_mean import regmean

FusionName: TypeAlias = Literal["mean", "fisher", "regmean", "regmean++"]
Fusion: TypeAlias = FusionName | Callable[..., FusedState]
"""A name, or a function such as ``functools.partial(regmean, alpha=0.5)``."""

FUSIONS: dict[str, Callable[..., FusedState]] = {
    "fisher": fisher,
    "regmean": regmean,
    "regmean++": regmean_plus_plus,
}


def fused(
    networks: Sequence[NetworkLike],
    alignments: Sequence[Alignment],
    fusion: Fusion,
    data: Sequence[Any] | None,
    shares: Sequence[float] | None = None,
    *,
    batch: BatchAdapter | None = None,
) -> FusedState:
    """Fuse aligned networks as asked.

    Args:
        networks: those that were aligned, in the same order; none is changed.
        alignments: one a network.
        fusion: ``"mean"``, ``"fisher"``, ``"regmean"``, ``"regmean++"``, or such a function with settings.
        data: one entry a network: batches, or what its owner measured; ``"mean"`` takes none.
        shares: w, one a network; equal without it.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        DataError: no such fusion, or data are missing.
        ArchitectureError: as the fusion.

    >>> from sinkhorn_rebasin.permutations import PermutationSpec
    >>> import torch
    >>> stays = Alignment({}, PermutationSpec((), (), {"w": (1,)}))
    >>> fused([{"w": torch.ones(1)}, {"w": torch.zeros(1)}], [stays, stays], "mean", None)["w"].item()
    0.5
    """
    if fusion == "mean":
        aligned = AlignedNetworks.of(networks, alignments, shares)
        return FusedState.of(aligned.mean(), "mean", len(networks), aligned.spec, {})
    function = FUSIONS.get(fusion) if isinstance(fusion, str) else fusion
    if not callable(function):
        raise DataError(
            f"Expected fusion to be one of mean, {', '.join(FUSIONS)}, or such a function, but got {fusion!r}."
        )
    if data is None:
        raise DataError(
            f"Expected data for fusion={fusion!r} but got none: pass data=, one entry a network, of batches or of "
            f"what its owner measured."
        )
    return function(networks, alignments, data, shares, batch=batch)
