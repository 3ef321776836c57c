"""How many pairs of units are merged in each group, within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks


@dataclass(frozen=True)
class _Product:
    """Hold what one weight multiplies.

    That is the groups it reads and writes, and its multiplications for each pair of their units.
    """

    groups: tuple[str, ...]
    cost: float


class WidthCost:
    r"""Count the multiplications of a merged network.

    They are in units of those of one network.

    With u of d units of a group left apart, the merged network has d + u units, and between units that are left apart
    those of one network meet their own kind alone:

    .. math:: \frac{\sum_l p_l \bigl[(d_l + u_l)(d_{l-1} + u_{l-1}) - 2 u_l u_{l-1}\bigr]}{\sum_l p_l d_l d_{l-1}}

    over layers at :math:`p_l` positions. It is 1 where all units are merged and 2 where none is.
    """

    def __init__(self, networks: TwoNetworks, positions: Mapping[str, int]) -> None:
        self.sizes = {group.name: group.size for group in networks.spec.groups}
        self.products = []
        for name in networks.spec.parameters:
            shape = networks.states[0][name].shape
            if len(shape) < 2:
                continue
            groups = tuple(dict.fromkeys(slot.group for slot in networks.spec.slots_on(name)))
            counted: float = positions.get(name, 1) * shape.numel()
            for group in groups[:2]:
                counted /= self.sizes[group]
            self.products.append(_Product(groups[:2], counted))
        self.of_group = {
            name: [product for product in self.products if name in product.groups] for name in self.sizes
        }
        self.single = self._total(dict.fromkeys(self.sizes, 0), self.products)

    def __call__(self, apart: Mapping[str, int]) -> float:
        """Return the cost of widths.

        They are given as the units of each group left apart.
        """
        return self._total(apart, self.products) / self.single if self.single else 1.0

    def more(self, apart: Mapping[str, int], name: str) -> float:
        """Return what one more unit of a group costs."""
        products = self.of_group[name]
        after = {**apart, name: apart[name] + 1}
        return (self._total(after, products) - self._total(apart, products)) / self.single

    def _total(self, apart: Mapping[str, int], products: Sequence[_Product]) -> float:
        total = 0.0
        for product in products:
            left = [apart[name] for name in product.groups]
            sizes = [self.sizes[name] + more for name, more in zip(product.groups, left, strict=True)]
            pairs = sizes[0] * sizes[1] - 2 * left[0] * left[1] if len(sizes) == 2 else sum(sizes) or 2
            total += product.cost * pairs
        return total


def pairs_apart(
    distances: Mapping[str, Tensor], cost: WidthCost, budget: float, fixed: Sequence[str] = ()
) -> dict[str, list[int]]:
    """Choose the pairs that are left apart.

    First come those with the largest distance for their cost.

    A greedy knapsack: again and again the group whose worst pair gains most for its cost gets one more unit, while
    the budget allows it.

    Args:
        distances: of each pair of units of each group, comparable among groups.
        cost: of the network.
        budget: the most multiplications, in those of one network, from 1 to 2.
        fixed: groups of which all pairs are merged.
    """
    order = {
        name: torch.argsort(each, descending=True, stable=True).tolist() for name, each in distances.items()
    }
    apart = dict.fromkeys(distances, 0)
    spent, open_groups = cost(apart), [name for name in distances if name not in fixed]
    if budget == 2 and not fixed:
        return order
    while open_groups:
        prices = {name: cost.more(apart, name) for name in open_groups}
        open_groups = [
            name
            for name in open_groups
            if apart[name] < len(order[name]) and spent + prices[name] <= budget + 1e-9
        ]
        if not open_groups:
            break
        worth = {
            name: float(distances[name][order[name][apart[name]]]) / max(prices[name], 1e-12)
            for name in open_groups
        }
        best = max(open_groups, key=lambda name: worth[name])
        spent += prices[best]
        apart[best] += 1
    return {name: order[name][: apart[name]] for name in distances}
