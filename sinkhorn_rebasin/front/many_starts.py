"""Where several networks start from, besides their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike
from sinkhorn_rebasin.matching import Alignment, activation_matching
from sinkhorn_rebasin.merging import ManyAlignment, match_many
from sinkhorn_rebasin.merging.match_many import ManyMethod
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations

STARTS: tuple[ManyMethod, ...] = ("merge_many", "frank_wolfe")
AS_THEY_ARE = "as they are"


def starts_of(
    networks: Sequence[NetworkLike],
    spec: PermutationSpec,
    method: ManyMethod | None,
    data: list[Any],
    batch: BatchAdapter | None,
    **options: Any,
) -> list[ManyAlignment]:
    """Match by one method, or by all.

    All are two by weights, one by activations, and the networks as they are. Owners who train on from one network
    need no alignment, and what another start gains on their weights or activations may be noise.

    Args:
        networks: to start from.
        spec: their symmetries.
        method: None tries all.
        data: training batches to match activations on.
        batch: a function from a batch to (inputs, labels).
        options: of :func:`match_many`.
    """
    if method is not None:
        return [match_many(networks, spec, method=method, **options)]
    by_weights = [match_many(networks, spec, method=each, **options) for each in STARTS]
    as_they_are = ManyAlignment((_unmoved(spec, AS_THEY_ARE),) * len(networks), method=AS_THEY_ARE)
    return [*by_weights, *by_activations(networks, spec, data, batch), as_they_are]


def by_activations(
    networks: Sequence[NetworkLike], spec: PermutationSpec, data: list[Any], batch: BatchAdapter | None
) -> list[ManyAlignment]:
    """Match each network's activations to the first's.

    Nothing is returned where one is a state that cannot be run.
    """
    modules = [network for network in networks if isinstance(network, nn.Module)]
    if len(modules) < len(networks) or not data:
        return []
    first, *others = modules
    alignments = (activation_matching(first, other, spec, data=data, batch=batch) for other in others)
    stays = _unmoved(spec, "activation_matching")
    return [ManyAlignment((stays, *alignments), method="activation_matching")]


def _unmoved(spec: PermutationSpec, method: str) -> Alignment:
    """Leave every unit where it is."""
    return Alignment(identity_permutations(spec), spec, method=method)
