"""Which unit of a target goes to each unit of a reference."""

from __future__ import annotations

from torch import Tensor

from sinkhorn_rebasin.errors import SpecError, listed
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks


def orders_of(networks: TwoNetworks, alignment: Alignment) -> dict[str, Tensor]:
    """Return an alignment's order of each group.

    Raises:
        SpecError: a group is missing or has another size, or units have signs, scales or maps too.
    """
    spec, orders = networks.spec, alignment.permutations
    missing = [g.name for g in spec.groups if g.name not in orders or orders[g.name].shape != g.shape]
    if missing:
        raise SpecError(
            f"Expected an alignment of these networks but it lacks groups {listed(map(repr, missing))}, or has them "
            f"in another size."
        )
    if alignment.signs or alignment.log_scales or alignment.maps:
        raise SpecError(
            "Expected an alignment of permutations alone but it has signs, scales or maps: load "
            "alignment.apply(target) into the target first, and pass an alignment that keeps the order of units."
        )
    return {name: orders[name].cpu() for name in spec.names}
