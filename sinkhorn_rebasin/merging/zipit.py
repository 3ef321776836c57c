"""ZipIt: units of two networks zipped together, across and within."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.activations.batch_norm import reset_batch_norm
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.merging.partial.assembly import assembled
from sinkhorn_rebasin.merging.partial.depth import groups_until
from sinkhorn_rebasin.merging.partial.first_inputs import first_inputs
from sinkhorn_rebasin.merging.partial.joint_moments import group_moments, joint_moments
from sinkhorn_rebasin.merging.partial.partial_merge import PartialMerge
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.merging.repeatable import repeatable
from sinkhorn_rebasin.permutations import PermutationSpec


def zipit(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    until: str | None = None,
    heads: Sequence[str] | None = None,
    alpha: float = 0.3,
    beta: float = 0.125,
    transposed: Collection[str] = (),
    batch: BatchAdapter | None = None,
) -> PartialMerge:
    r"""Merge networks of two tasks by zipping units.

    All 2d units of a group are correlated, within each network and across. The best pair becomes one unit, again and
    again, until d are left. Weights that write units are averaged by M, and those that read them are added up by U:

    .. math:: W'_l = M_l \begin{pmatrix} W^A_l & 0 \\ 0 & W^B_l \end{pmatrix} U_{l-1}, \qquad M_l U_l = 1

    Groups behind ``until`` keep all 2d units, and heads are kept apart: their outputs lie side by side. Statistics of
    batch norm are measured anew on the data.

    Args:
        reference, target: modules of one architecture but for their heads; neither is changed.
        spec: the symmetries of the reference, from :func:`discover_symmetry`.
        data: batches of (inputs, labels) or of inputs alone. They are gone through twice.
        until: a module or group: groups behind it, in the spec's order, are not merged. None: all are merged.
        heads: names or patterns of last layers that are kept apart; None: all; (): none, they are averaged.
        alpha: what a merged unit's correlations are multiplied by each time, so that clusters stay small.
        beta: the share of the merges of each network that may be within it; 0: only pairs across.
        transposed: parameters that write units on another axis than their first, where the layer's class does not
            tell.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The network, a plain module, and which units became one.

    Complexity: O(n d²) for n samples and O(d³) for pairing each group of d units.

    Raises:
        ArchitectureError: networks that differ in more than heads, a group that nothing shows, or one behind
            ``until`` whose size cannot change.
        DataError: no data, or an iterator, which cannot be gone through twice.
        SpecError: nested groups, ``until`` or heads that do not exist, alpha or beta outside [0, 1].

    Example:
        >>> from sinkhorn_rebasin.permutations import permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(64, 5)
        >>> spec = discover_symmetry(net, x)
        >>> twin = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = twin.load_state_dict(permute_state(net.state_dict(), spec, random_permutations(spec)))
        >>> merged = zipit(net, twin, spec, data=[x])
        >>> ours, theirs = merged.split(merged.network(x))
        >>> torch.allclose(ours, net(x), atol=1e-5), torch.allclose(theirs, net(x), atol=1e-5)
        (True, True)

    Source: Stoica, Bolya, Bjorner, Ramesh, Hearn, Hoffman, "ZipIt! Merging models from different tasks without
    training" (2024).
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:
            raise SpecError(f"Expected {name} in [0, 1] but got {value}.")
    given = repeatable(data)
    networks = TwoNetworks.of(reference, target, spec, heads, transposed)
    zipped = groups_until(networks, until)
    correlations = group_moments(joint_moments(networks, given, batch))
    merges = {
        name: zipped_units(correlations[name], alpha, beta)
        if name in zipped
        else UnitMerge.apart(networks.spec[name].size)
        for name in networks.spec.names
    }
    network = assembled(networks, merges, first_inputs(networks, given, batch))
    return PartialMerge.of(reset_batch_norm(network, given, batch=batch), merges, networks)


def zipped_units(similarity: Tensor, alpha: float = 0.3, beta: float = 0.125) -> UnitMerge:
    """Pair units greedily until half of them are left.

    Args:
        similarity: (2d, 2d), of the units of the reference and then those of the target.
        alpha, beta: see :func:`zipit`.

    >>> alike = torch.tensor([[1.0, 0.1, 0.2, 0.9], [0.1, 1.0, 0.3, 0.2], [0.2, 0.3, 1.0, 0.1], [0.9, 0.2, 0.1, 1.0]])
    >>> zipped_units(alike).clusters
    ((0, 3), (1, 2))
    """
    units = len(similarity) // 2
    worth = similarity.detach().double().cpu().clone().fill_diagonal_(-torch.inf)
    clusters = [[unit] for unit in range(2 * units)]
    owner = torch.arange(2 * units, device="cpu") // max(units, 1)
    left = [int(beta * units / 2 + 1e-9)] * 2
    for network in (0, 1):
        _forbid_within(worth, owner, network, left)
    alive = 2 * units
    while alive > units:
        kept, gone = sorted(divmod(int(worth.argmax()), 2 * units))
        clusters[kept] += clusters[gone]
        clusters[gone] = []
        joined = torch.minimum(worth[kept], worth[gone])
        # The least similarity of a cluster's members counts; alpha below zero would make bad pairs better.
        joined = torch.where(joined > 0, alpha * joined, joined)
        worth[kept], worth[:, kept] = joined, joined
        worth[gone], worth[:, gone] = -torch.inf, -torch.inf
        worth[kept, kept] = -torch.inf
        if owner[kept] == owner[gone]:
            left[int(owner[kept])] -= 1
            _forbid_within(worth, owner, int(owner[kept]), left)
        owner[gone] = -1
        alive -= 1
    return UnitMerge(tuple(tuple(sorted(cluster)) for cluster in clusters if cluster), units)


def _forbid_within(worth: Tensor, owner: Tensor, network: int, left: Sequence[int]) -> None:
    """Rule out merges within a network.

    It has no more of them left.
    """
    if left[network] <= 0:
        own = owner == network
        worth[own[:, None] & own[None, :]] = -torch.inf
