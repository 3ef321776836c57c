"""Where several networks start from, besides their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike
from sinkhorn_rebasin.matching import Alignment, activation_matching
from sinkhorn_rebasin.merging import ManyAlignment
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations


def by_activations(
    networks: Sequence[NetworkLike], spec: PermutationSpec, data: list[Any], batch: BatchAdapter | None
) -> list[ManyAlignment]:
    """Match each network's activations to the first's; nothing where one is a state that cannot be run."""
    modules = [network for network in networks if isinstance(network, nn.Module)]
    if len(modules) < len(networks) or not data:
        return []
    first, *others = modules
    stays = Alignment(identity_permutations(spec), spec, method="activation_matching")
    alignments = (activation_matching(first, other, spec, data=data, batch=batch) for other in others)
    return [ManyAlignment((stays, *alignments), method="activation_matching")]
