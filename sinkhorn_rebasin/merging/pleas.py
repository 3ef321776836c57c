"""PLeaS: permutations and least squares, with a budget of widths."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.activations.statistics import PairedMoments
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.activation_matching import activation_matching
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.merging.fit_layers import Inputs, fit_layers
from sinkhorn_rebasin.merging.partial.assembly import assembled
from sinkhorn_rebasin.merging.partial.first_inputs import first_inputs
from sinkhorn_rebasin.merging.partial.joint_moments import joint_moments, trunks
from sinkhorn_rebasin.merging.partial.layer_positions import layer_positions
from sinkhorn_rebasin.merging.partial.paired_orders import orders_of
from sinkhorn_rebasin.merging.partial.partial_merge import PartialMerge
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.merging.partial.width_budget import WidthCost, pairs_apart
from sinkhorn_rebasin.merging.repeatable import repeatable
from sinkhorn_rebasin.permutations import PermutationSpec

Matching = Literal["activations", "weights"]


def pleas(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    budget: float = 1.0,
    matching: Matching | Alignment = "activations",
    heads: Sequence[str] | None = None,
    inputs: Inputs = "ensemble",
    ridge: float = 1e-4,
    positions: int | None = None,
    transposed: Collection[str] = (),
    batch: BatchAdapter | None = None,
) -> PartialMerge:
    r"""Merge networks of two tasks within a budget.

    Permutations come first, then widths, then least squares.

    Units are paired by a matching. In each group the pairs that are least alike,

    .. math:: \frac{\mathbb E\,(z^A_i - z^B_{\pi(i)})^2}
        {\tfrac1d \sum_j (\operatorname{Var} z^A_j + \operatorname{Var} z^B_j)},

    stay two units for as long as the budget lasts. All others become their mean. Then every layer is fitted to the
    means of what both networks compute: see :func:`fit_layers`. Heads are kept apart: their outputs lie side by side.

    Args:
        reference, target: modules of one architecture but for their heads; neither is changed.
        spec: the symmetries of the reference, from :func:`discover_symmetry`.
        data: batches of (inputs, labels) or of inputs alone, gone through several times. No labels are used.
        budget: the most multiplications, from 1 (each group as wide as in one network) to 2 (both networks beside
            each other). Zeros between units of different networks do not count, though the plain module has them.
        matching: ``"activations"``, ``"weights"``, or an alignment of the target.
        heads: names or patterns of last layers that are kept apart; None: all; (): none, they are averaged.
        inputs, ridge, positions: of the least squares: see :func:`fit_layers`.
        transposed: parameters that write units on another axis than their first, where the layer's class does not
            tell.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The network, a plain module, and which units became one.

    Raises:
        ArchitectureError: networks that differ in more than heads, a group that nothing shows, or one whose size
            cannot change though the budget asks for it.
        DataError: no data, or an iterator, which cannot be gone through twice.
        SpecError: a budget outside [1, 2], an unknown matching, nested groups, or heads that do not exist.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
        >>> x = torch.randn(64, 5)
        >>> both = pleas(a, b, discover_symmetry(a, x), data=[x], budget=2.0)
        >>> torch.allclose(both.network(x), torch.cat([a(x), b(x)], 1), atol=1e-4)
        True
        >>> pleas(a, b, discover_symmetry(a, x), data=[x], budget=1.5).network[0].out_features
        12

    Source: Nasery, Hayase, Koh, Oh, "PLeaS: merging models with permutations and least squares" (2025). Its quadratic
    program for the widths is a greedy knapsack here, and its Adam steps a closed form.
    """
    given = repeatable(data)
    if not 1 <= budget <= 2:
        raise SpecError(
            f"Expected a budget from 1.0, as wide as one network, to 2.0, as both, but got {budget}."
        )
    networks = TwoNetworks.of(reference, target, spec, heads, transposed)
    orders = _orders(networks, matching, given, batch)
    moments = joint_moments(networks, given, batch)
    distances = {name: pair_distances(moments[name], orders[name]) for name in networks.spec.names}
    example = first_inputs(networks, given, batch)
    cost = WidthCost(networks, layer_positions(networks, example))
    apart = pairs_apart(distances, cost, budget)
    merges = {
        name: UnitMerge.paired(orders[name], set(range(len(orders[name]))) - set(apart[name]))
        for name in networks.spec.names
    }
    network = assembled(networks, merges, example)
    merge = PartialMerge.of(network, merges, networks)
    if not any(each.merged for each in merges.values()) and networks.heads:
        return merge  # both networks beside each other, to the last bit
    return fit_layers(merge, given, inputs=inputs, ridge=ridge, positions=positions, batch=batch)


def pair_distances(moments: PairedMoments, order: Tensor) -> Tensor:
    """Return the distance between units of each pair.

    It is in units of their group's mean variance.

    Args:
        moments: of all 2d units with each other.
        order: which unit of the target goes to each of the reference's.

    >>> x = torch.tensor([[[1.0, -1.0]], [[2.0, -2.0]], [[2.0, -2.0]], [[0.0, 0.0]]])
    >>> moments = PairedMoments()
    >>> moments.update(x, x)
    >>> pair_distances(moments, torch.tensor([1, 0])).tolist()
    [0.2222222222222222, 0.0]
    """
    products = moments.products().sum(0)
    count = len(products) // 2
    theirs = count + order.to(products.device)
    squares = products.diagonal()
    apart = squares[:count] + squares[theirs] - 2 * products[torch.arange(count, device=order.device), theirs]
    spread = moments.squares[0].sum() / moments.count / count
    return apart.clamp_min(0.0) / spread.clamp_min(1e-30)


def _orders(
    networks: TwoNetworks, matching: Matching | Alignment, data: Iterable[Any], batch: BatchAdapter | None
) -> dict[str, Tensor]:
    """Return which units go together.

    They are, for each unit of the reference, one of the target.
    """
    spec = networks.spec
    if isinstance(matching, Alignment):
        found = matching
    elif matching == "activations":
        trunk = trunks(networks)[1]
        found = activation_matching(networks.reference, trunk, spec, data=data, batch=batch)
    elif matching == "weights":
        found = weight_matching(*trunks(networks), spec)
    else:
        raise SpecError(
            f"Expected matching to be 'activations', 'weights' or an Alignment but got {matching!r}."
        )
    return orders_of(networks, found)
