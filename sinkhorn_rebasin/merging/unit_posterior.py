"""Units of several networks assigned to global ones, of which there are as many as pay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sinkhorn_rebasin.errors import AssignmentError


@dataclass(frozen=True)
class UnitPrior:
    r"""Say how units arise from global ones.

    .. math:: \mu_g \sim \mathcal N(0, \sigma_0^2), \qquad w_{jl} \sim \mathcal N(\mu_{g(j, l)}, \sigma_j^2)

    Which global units a network has is drawn from a Beta-Bernoulli process.

    Args:
        sigma: σ, how far units of a network lie from their global unit. σ_j² is σ² / (J s_j) for a network with
            the share s_j of the samples.
        sigma_0: σ_0, how far global units lie from zero.
        gamma: γ, how readily there is a new global unit.
        rounds: how often every network is assigned anew.
        most: no new global unit is made beyond so many, unless a network has more units itself; None: no limit.

    Raises:
        AssignmentError: a number that is not above zero; it is named.

    Example:
        >>> UnitPrior(sigma=0.5).gamma
        1.0

    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks" (2019).
    """

    sigma: float = 1.0
    sigma_0: float = 1.0
    gamma: float = 1.0
    rounds: int = 3
    most: int | None = None

    def __post_init__(self) -> None:
        for name in ("sigma", "sigma_0", "gamma", "rounds", "most"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (name == "most" and value is None) and not (number and 0 < value < math.inf):
                raise AssignmentError(f"Expected {name} to be a number above 0 but got {value!r}.")


@dataclass
class GlobalUnits:
    """Hold the natural parameters of global units' posterior.

    Attributes:
        prior: of the units.
        networks: how many networks there are, J.
        sums: Σ w / σ_j² of the units assigned to each, (units, features).
        precisions: Σ 1 / σ_j² of them, (units,).
        counts: how many networks have each, (units,).
    """

    prior: UnitPrior
    networks: int
    sums: Tensor
    precisions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def gains(self, units: Tensor, precision: float) -> Tensor:
        r"""Return each unit's gain at each global unit.

        Units to come are the last columns.

        .. math:: \frac{\lVert S_g + w / \sigma_j^2 \rVert^2}{D_g + 1 / \sigma_j^2} -
            \frac{\lVert S_g \rVert^2}{D_g} + 2 \log \frac{m_g}{J - m_g}

        with S and D the posterior's sum and precision. The i-th new unit has S = 0, D = 1 / σ_0² and
        :math:`2 \log (\gamma / J) - 2 \log i` instead.
        """
        prior, weighted = self.prior, units * precision
        base = 1 / prior.sigma_0**2
        known = base + self.precisions
        together = self.sums.square().sum(1) + 2 * weighted @ self.sums.T
        together = (together + weighted.square().sum(1, keepdim=True)) / (known + precision)
        old = (
            together
            - self.sums.square().sum(1) / known
            + 2 * torch.log(self.counts / (self.networks - self.counts))
        )
        room = len(units) if prior.most is None else prior.most - len(self.counts)
        room = max(min(room, len(units)), len(units) - len(self.counts), 0)
        places = torch.arange(1, room + 1, dtype=units.dtype)
        fresh = weighted.square().sum(1, keepdim=True) / (base + precision)
        new = fresh + 2 * math.log(prior.gamma / self.networks) - 2 * places.log()
        return torch.cat([old, new], 1)

    def assign(self, units: Tensor, precision: float) -> Tensor:
        """Assign a network's units, and take them in.

        Returns:
            The global unit of each, (units,).
        """
        _, columns = linear_sum_assignment(self.gains(units, precision).numpy(), maximize=True)
        places, before = torch.from_numpy(columns), len(self.counts)
        # New global units are numbered without gaps.
        fresh = places >= before
        places[fresh] = before + torch.arange(int(fresh.sum()))
        more = int(fresh.sum())
        self.sums = torch.cat([self.sums, self.sums.new_zeros(more, self.sums.shape[1])])
        self.precisions = torch.cat([self.precisions, self.precisions.new_zeros(more)])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(more)])
        self._add(units, precision, places, 1)
        return places

    def remove(self, units: Tensor, precision: float, places: Tensor) -> Tensor:
        """Take a network's units out.

        Global units that no network has then are gone.

        Returns:
            The new number of each global unit that was there; -1 for those that are gone.
        """
        self._add(units, precision, places, -1)
        kept = self.counts > 0
        self.sums, self.precisions, self.counts = self.sums[kept], self.precisions[kept], self.counts[kept]
        numbers = torch.full((len(kept),), -1)
        numbers[kept] = torch.arange(int(kept.sum()))
        return numbers

    def _add(self, units: Tensor, precision: float, places: Tensor, sign: int) -> None:
        self.sums[places] += sign * precision * units
        self.precisions[places] += sign * precision
        self.counts[places] += sign


def assign_units(
    features: Sequence[Tensor],
    shares: Sequence[float],
    prior: UnitPrior,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Assign several networks' units to global ones.

    Networks come in by the number of their units, the largest first. Then, in rounds of random order, each one is
    taken out and assigned anew.

    Args:
        features: of each network's units, (units, features); the features of all networks correspond.
        shares: of the samples, one a network.
        prior: how units arise.
        generator: draws the orders; without it a fixed order of its own is used.

    Returns:
        The global unit of each unit, one tensor a network. The largest network's units come first.

    Raises:
        AssignmentError: features that are not finite.

    Example:
        >>> first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> second = torch.tensor([[0.0, 1.0], [5.0, 5.0], [1.0, 0.0]])
        >>> first, second = assign_units([first, second], [0.5, 0.5], UnitPrior(sigma=0.1))
        >>> first.tolist(), second.tolist()
        ([2, 0], [0, 1, 2])
    """
    features = [each.double().cpu() for each in features]
    if not all(bool(each.isfinite().all()) for each in features):
        raise AssignmentError("Expected finite weights to assign units by but got infinite ones or NaN.")
    generator = generator or torch.Generator().manual_seed(0)
    count = len(features)
    precisions = [count * share / prior.sigma**2 for share in shares]
    units = GlobalUnits(prior, count, features[0].new_zeros(0, features[0].shape[1]))
    places: list[Tensor] = [torch.zeros(0)] * count
    for number in sorted(range(count), key=lambda number: -len(features[number])):
        places[number] = units.assign(features[number], precisions[number])
    for _ in range(prior.rounds):
        for number in torch.randperm(count, generator=generator).tolist():
            numbers = units.remove(features[number], precisions[number], places[number])
            places = [each if n == number else numbers[each] for n, each in enumerate(places)]
            places[number] = units.assign(features[number], precisions[number])
    return _by_appearance(places)


def _by_appearance(places: Sequence[Tensor]) -> list[Tensor]:
    """Number global units by appearance, largest network first."""
    largest_first = sorted(places, key=lambda each: -len(each))
    order = list(dict.fromkeys(torch.cat(largest_first).tolist()))
    numbers = torch.empty(len(order), dtype=torch.long)
    numbers[torch.tensor(order)] = torch.arange(len(order))
    return [numbers[each] for each in places]
