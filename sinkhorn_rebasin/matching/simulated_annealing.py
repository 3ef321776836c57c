"""Simulated annealing: swap two units at random, keep what helps and, while it is hot, some of what does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Permutations, State, StateLike
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import LossError, SpecError
from sinkhorn_rebasin.matching.base import Alignment, as_states
from sinkhorn_rebasin.matching.finite_weights import comparable_states
from sinkhorn_rebasin.matching.midpoint import Midpoint
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import Group, PermutationSpec, identity_permutations
from sinkhorn_rebasin.permutations.action import permute_tensor

Energy = Callable[[Permutations], float]
"""Permutations to what is to be lowered."""


def simulated_annealing(
    reference: nn.Module | StateLike,
    target: nn.Module | StateLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    generator: torch.Generator | None = None,
    criterion: Criterion | None = None,
    steps: int = 2000,
    temperature: Callable[[float], float] | None = None,
    start: Literal["identity", "weight_matching"] = "identity",
    batch: BatchAdapter | None = None,
) -> Alignment:
    r"""Lower an energy by random transpositions.

    Two units are swapped. The Metropolis rule accepts.

    .. math:: \Pr(\text{accept}) = \min\Bigl(1, e^{-(E(\pi') - E(\pi)) / (\tau E_0)}\Bigr), \qquad
        E(\pi) = \mathcal C\bigl(\tfrac12(\pi(\theta_T) + \theta_R)\bigr)
        \ \text{or}\ \lVert \pi(\theta_T) - \theta_R \rVert^2

    The energy is the midpoint loss over all data, or, without data, the weight distance; E₀ is its value at the
    start, so that the temperature τ has no unit. A unit is drawn from all units of all groups, its partner from
    the same block. The best permutations seen are returned; :attr:`Alignment.objective` is the best energy at the
    start and after every hundred steps.

    Args:
        reference, target: networks of one architecture, one of them a module when there are data; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data: batches of (inputs, labels); None for the weight distance.
        generator: draws units and acceptances; without it a fixed sequence of its own is used.
        criterion: (outputs, labels) to a scalar, with data.
        steps: transpositions tried.
        temperature: share of the steps done, 0 to 1, to τ; without it geometric from 10⁻³ to 10⁻⁶.
        start: the permutations to begin with.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Complexity: per step a pass over the data, or over the tensors of one group. A group of n units needs
    far more than n² steps, so use it on tiny networks and as the baseline it is in the literature.

    Raises:
        ArchitectureError, SpecError: when the networks differ, the spec is of another one, or the start unknown.
        DataError: with data that hold no batch.
        LossError: with data and no criterion, or the other way round, or a loss that is no finite scalar.

    Example:
        >>> from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> spec = discover_symmetry(net, torch.randn(3, 5))
        >>> planted = random_permutations(spec)
        >>> target = permute_state(net.state_dict(), spec, planted)
        >>> torch.equal(simulated_annealing(net, target, spec).permutations["0"], inverse(spec, planted)["0"])
        True

    Sources: Entezari, Sedghi, Saukh, Neyshabur, "The role of permutation invariance in linear mode connectivity
    of neural networks" (2022); Kirkpatrick, Gelatt, Vecchi, "Optimization by simulated annealing" (1983).
    """
    first, second = as_states(reference, target, spec)
    generator = generator or torch.Generator().manual_seed(0)
    if start not in ("identity", "weight_matching"):
        raise SpecError(f"Expected start to be 'identity' or 'weight_matching' but got {start!r}.")
    energy = _energy(reference, target, spec, data, criterion, batch)
    current = identity_permutations(spec)
    if start == "weight_matching":
        current = dict(weight_matching(first, second, spec, generator=generator).permutations)
    temperature = temperature or geometric(1e-3, 1e-6)
    value = energy(current)
    best, lowest, scale, objective = current, value, max(abs(value), 1e-300), [value]
    groups = [group for group in spec.groups if group.size > 1]
    for step in range(steps if groups else 0):
        proposal = _transposed(current, groups, generator)
        proposed = energy(proposal)
        heat = scale * temperature(step / max(1, steps - 1))
        drawn = float(torch.rand((), generator=generator, device=generator.device))
        if proposed <= value or (heat > 0 and drawn < math.exp((value - proposed) / heat)):
            current, value = proposal, proposed
            if value < lowest:
                best, lowest = current, value
        if (step + 1) % 100 == 0:
            objective.append(lowest)
    return Alignment(best, spec, tuple(objective), converged=False, method="simulated_annealing")


def _transposed(
    permutations: dict[str, Tensor], groups: Sequence[Group], generator: torch.Generator
) -> dict[str, Tensor]:
    """Swap a random pair of units.

    The first is drawn from all units of these groups, the second from its block.
    """

    def draw(below: int) -> int:
        """Draw an integer below a bound."""
        return int(torch.randint(below, (), generator=generator, device=generator.device))

    ends = torch.tensor([group.units for group in groups]).cumsum(0)
    group = groups[int(torch.searchsorted(ends, draw(int(ends[-1])), right=True))]
    block, one = draw(group.blocks), draw(group.size)
    other = (one + 1 + draw(group.size - 1)) % group.size
    rows = permutations[group.name].reshape(group.blocks, group.size).clone()
    rows[block, [one, other]] = rows[block, [other, one]]
    return {**permutations, group.name: rows.reshape(group.shape)}


def _energy(
    reference: nn.Module | StateLike,
    target: nn.Module | StateLike,
    spec: PermutationSpec,
    data: Iterable[Any] | None,
    criterion: Criterion | None,
    batch: BatchAdapter | None,
) -> Energy:
    if (data is None) != (criterion is None):
        given, lacking = ("data", "criterion") if criterion is None else ("criterion", "data")
        raise LossError(f"Expected data and a criterion, or neither, but got {given} without {lacking}.")
    if data is None:
        first, second = comparable_states(*as_states(reference, target, spec), spec)
        return _weight_distance(first, second, spec)
    midpoint = Midpoint(reference, target, spec, data, criterion, batch)
    return midpoint.loss


def _weight_distance(reference: State, target: State, spec: PermutationSpec) -> Energy:
    """Make the squared distance of all parameters.

    Only the tensors of the group that was changed are compared again.
    """
    known: dict[str, tuple[tuple[Tensor, ...], float]] = {}

    def distance(name: str, permutations: Permutations) -> float:
        """Return the squared distance of one permuted tensor."""
        slots = spec.slots_on(name)
        key = tuple(permutations[slot.group] for slot in slots)
        if name in known and all(a is b for a, b in zip(known[name][0], key, strict=True)):
            return known[name][1]
        moved = permute_tensor(target[name], slots, permutations)
        value = float((real_view(reference[name]).double() - real_view(moved).double()).square().sum())
        known[name] = key, value
        return value

    return lambda permutations: sum(distance(name, permutations) for name in spec.parameters)
