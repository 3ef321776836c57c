"""Statistics of the units of two networks, within each and across."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from sinkhorn_rebasin._typing import BatchAdapter, State
from sinkhorn_rebasin.activations.statistics import PairedMoments, check_finite, paired_units
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.networks.copying import evaluation_copy


def joint_moments(
    networks: TwoNetworks, data: Iterable[Any], batch: BatchAdapter | None = None
) -> dict[str, PairedMoments]:
    """Measure the moments of all 2d units.

    Those of one group are measured with each other.

    The reference's units come first. They are read where :func:`activation_matching` reads them.

    Raises:
        ArchitectureError: a group that nothing shows, or that was not seen as often in both networks; it is named.
        DataError: there is no batch, or activations are no finite numbers.
    """
    spec, network = networks.spec, evaluation_copy(networks.reference)
    found = {name: PairedMoments() for name in spec.names}
    unseen: dict[str, None] = {}
    for _, pairs in paired_units(network, *trunks(networks), spec, data, batch=batch):
        for name, moments in found.items():
            ours, theirs = pairs.get(name, (None, None))
            if ours is None or theirs is None or ours.shape != theirs.shape:
                unseen[name] = None
                continue
            both = torch.cat([ours, theirs])
            moments.update(both, both)
    check_finite(found)
    unseen |= {name: None for name, moments in found.items() if not moments.count}
    if unseen:
        raise ArchitectureError(
            f"Expected to see the units of every group at work, as often in both networks, but no layer or operation "
            f"shows those of {listed(map(repr, unseen))}: leave them as they are with spec.without(...)."
        )
    return found


def trunks(networks: TwoNetworks) -> tuple[State, State]:
    """Return tensors that one network can run.

    They are both networks', the target's with the reference's heads.
    """
    first, second = networks.states
    return dict(first), {name: first[name] if name in networks.heads else second[name] for name in first}


def group_moments(moments: Mapping[str, PairedMoments]) -> dict[str, torch.Tensor]:
    """Return the mean correlation of units, (2d, 2d).

    The mean is over positions.
    """
    return {name: each.correlations().mean(0) for name, each in moments.items()}
