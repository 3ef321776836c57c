"""The mean of two aligned networks, with heads kept apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.activations.batch_norm import has_statistics, reset_batch_norm
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.partial.assembly import assembled
from sinkhorn_rebasin.merging.partial.first_inputs import first_inputs
from sinkhorn_rebasin.merging.partial.paired_orders import orders_of
from sinkhorn_rebasin.merging.partial.partial_merge import PartialMerge
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.merging.repeatable import repeatable
from sinkhorn_rebasin.permutations import PermutationSpec


def merge_trunks(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    alignment: Alignment,
    *,
    data: Iterable[Any] | None = None,
    heads: Sequence[str] | None = None,
    transposed: Collection[str] = (),
    batch: BatchAdapter | None = None,
) -> PartialMerge:
    r"""Average two trunks, and keep heads apart.

    The alignment says which units belong together.

    .. math:: t = \tfrac12\, \pi(\theta_T) + \tfrac12\, \theta_R

    The trunk is as wide as one network. Both heads read it, and their outputs lie side by side. Statistics of batch
    norm are measured anew on the data.

    Args:
        reference, target: modules of one architecture but for their heads; neither is changed.
        spec: the symmetries of the reference, from :func:`discover_symmetry`.
        alignment: of the target, by any matching with ``ignore=`` of the heads; permutations alone.
        data: batches of (inputs, labels) or of inputs alone; the first one proves that the network runs.
        heads: names or patterns of last layers that are kept apart; None: all; (): none, they are averaged.
        transposed: parameters that write units on another axis than their first, where the layer's class does not
            tell.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The network, a plain module, and which units became one.

    Raises:
        ArchitectureError: networks that differ in more than heads.
        DataError: no data, or an iterator, which cannot be gone through twice.
        SpecError: an alignment of others, or with signs, scales or maps; nested groups, or heads that do not exist.

    Example:
        >>> import torch
        >>> from sinkhorn_rebasin.matching import weight_matching
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, n)) for n in (2, 3))
        >>> x = torch.randn(64, 5)
        >>> spec = discover_symmetry(a, x)
        >>> merged = merge_trunks(a, b, spec, weight_matching(a, b, spec, ignore=["2"]), data=[x])
        >>> [part.shape[1] for part in merged.split(merged.network(x))]
        [2, 3]
    """
    given = repeatable(data)
    networks = TwoNetworks.of(reference, target, spec, heads, transposed)
    orders = orders_of(networks, alignment)
    merges = {name: UnitMerge.paired(order) for name, order in orders.items()}
    network = assembled(networks, merges, first_inputs(networks, given, batch))
    if any(has_statistics(module) for module in network.modules()):
        network = reset_batch_norm(network, given, batch=batch)
    return PartialMerge.of(network, merges, networks)
