"""Joint Frank-Wolfe: the permutations of all networks moved uphill together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from torch import Tensor

from sinkhorn_rebasin._typing import NetworkLike, Permutations, State
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.merge_many import match_to_mean, moved, told_by_first
from sinkhorn_rebasin.merging.states import states_of, sum_of_products
from sinkhorn_rebasin.networks.architecture import single_precision
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.action import permute_tensor

Soft = dict[str, Tensor]
"""Doubly stochastic matrices by group."""

PATIENCE = 5
"""Steps that gain too little, in a row, after which the search ends."""


@torch.inference_mode(False)
def match_by_frank_wolfe(
    networks: Sequence[NetworkLike],
    spec: PermutationSpec,
    *,
    generator: torch.Generator | None = None,
    max_rounds: int = 200,
    tolerance: float = 1e-6,
    start: Sequence[Permutations] | None = None,
    refine: bool = True,
    seconds: float | None = None,
    progress: bool = False,
) -> ManyAlignment:
    r"""Match all networks together, cycle-consistent by construction.

    .. math:: \max_{P_1, \dots, P_M} f(P) = \sum_{p < q} \langle P_p(\theta_p), P_q(\theta_q) \rangle

    over doubly stochastic matrices, one a network and group, into a common order. Each step goes towards the
    permutations D that are best for the gradient, by the best share of the way,

    .. math:: D = \arg\max_D \langle \nabla f(P), D \rangle, \qquad
        P \leftarrow P + t\,(D - P), \qquad t = \arg\max_{t \in [0, 1]} f(P + t\,(D - P)).

    f is a polynomial of t, so t is found exactly. At the end the nearest permutations are taken.

    Args:
        networks: at least two, of one architecture, or their states; none is changed.
        spec: their symmetries, from :func:`discover_symmetry`.
        generator: draws the orders of the refinement; without it a fixed order of its own is used.
        max_rounds: most steps.
        tolerance: relative gain of f below which a step gains nothing; five such steps end the search.
        start: permutations of each network to begin with; without them, what weight matching to the first finds.
        refine: match each network to the mean of the others at the end; without it as published.
        seconds: no step is taken after so many; the best so far is returned, not converged.
        progress: show a bar on standard error.

    Returns:
        All in the order of the first. Objectives are f after each step, and after rounding.

    Complexity: a step takes for each network one product by every matrix and one assignment a group.

    Raises:
        ArchitectureError, SpecError: fewer than two networks, or networks that differ from each other or the spec.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> match_by_frank_wolfe(nets, discover_symmetry(nets[0], torch.randn(4, 3))).cycle_error()
        0.0

    Source: Crisostomi et al., "C2M3: Cycle-Consistent Multi-Model Merging" (2024).
    """
    states, spec = states_of(networks, spec)
    watch = Watch(seconds, progress)
    begin = start
    if begin is None:
        first = match_to_mean(states, spec, generator=generator, max_rounds=0, seconds=seconds)
        begin = [alignment.permutations for alignment in first]
    problem = _Problem(states, spec)
    soft = [_as_matrices(order) for order in begin]
    objective, idle = [problem.value(soft)], 0
    with watch:
        watch.begin("Frank-Wolfe", max_rounds)
        while idle < PATIENCE and len(objective) <= max_rounds and not watch.expired:
            soft, value = problem.step(soft)
            gain = value - objective[-1]
            idle = idle + 1 if gain <= tolerance * max(1e-12, abs(objective[-1])) else 0
            objective.append(value)
            watch.step("")
    orders: list[Permutations] = [
        {name: hard_assignment(matrix) for name, matrix in each.items()} for each in soft
    ]
    objective.append(sum_of_products(moved(states, orders, spec), spec.compared))
    converged = idle >= PATIENCE
    if refine and not watch.expired:
        refined = match_to_mean(
            states, spec, generator=generator, seconds=seconds, progress=progress, start=orders
        )
        orders = [alignment.permutations for alignment in refined]
        objective.append(refined.objective[-1])
        converged &= refined.converged
    return told_by_first(orders, spec, objective, converged, "frank_wolfe")


class _Problem:
    """Hold the networks, and the value and slope of the sum of products.

    Only tensors that a group stands on count: the others' products are constants.
    """

    def __init__(self, states: Sequence[State], spec: PermutationSpec) -> None:
        self.spec = spec
        self.names = [name for name in spec.compared if spec.slots_on(name)]
        self.states = [{name: single_precision(state[name]) for name in self.names} for state in states]
        self.constant = sum_of_products(states, [name for name in spec.compared if not spec.slots_on(name)])
        slots = Counter(slot.tensor for slot in spec.slots if slot.tensor in set(self.names))
        self.degree = 2 * max(slots.values(), default=0)

    def value(self, soft: Sequence[Soft]) -> float:
        """Return f."""
        return self.constant + sum_of_products(
            [self._moved(*pair) for pair in zip(self.states, soft, strict=True)], self.names
        )

    def step(self, soft: Sequence[Soft]) -> tuple[list[Soft], float]:
        """Go uphill once; return the new place and its value."""
        directions = []
        for each, slope in zip(soft, self._slopes(soft), strict=True):
            vertex = {name: hard_assignment(matrix) for name, matrix in slope.items()}
            directions.append(
                {name: _matrix(vertex[name], matrix.dtype) - matrix for name, matrix in each.items()}
            )

        def place(share: float) -> list[Soft]:
            return [
                {name: matrix + share * towards[name] for name, matrix in each.items()}
                for each, towards in zip(soft, directions, strict=True)
            ]

        share = _best_share(lambda share: self.value(place(share)), self.degree)
        there = place(share)
        return there, self.value(there)

    def _slopes(self, soft: Sequence[Soft]) -> list[Soft]:
        """Return the gradient of f in every matrix."""
        if not self.names:
            return [{} for _ in soft]
        with torch.no_grad():
            places = [self._moved(*pair) for pair in zip(self.states, soft, strict=True)]
            total = {name: torch.stack([place[name] for place in places]).sum(0) for name in self.names}
        slopes = []
        for state, matrices, place in zip(self.states, soft, places, strict=True):
            leaves = {name: matrix.detach().requires_grad_() for name, matrix in matrices.items()}
            there = self._moved(state, leaves)
            product = sum(
                ((total[name] - place[name]).conj() * there[name]).real.sum() for name in self.names
            )
            gradients = torch.autograd.grad(product, list(leaves.values()), materialize_grads=True)  # type: ignore[arg-type]
            slopes.append(dict(zip(leaves, gradients, strict=True)))
        return slopes

    def _moved(self, state: State, soft: Soft) -> State:
        return {name: permute_tensor(state[name], self.spec.slots_on(name), soft) for name in self.names}


def _best_share(value: Callable[[float], float], degree: int) -> float:
    """Find where a polynomial on [0, 1] is largest, by its values at points of Chebyshev.

    >>> round(_best_share(lambda t: t - t**2, 2), 6)
    0.5
    """
    fitted = Chebyshev.interpolate(np.vectorize(value), degree, domain=[0, 1])
    roots = np.asarray(fitted.deriv().roots(), dtype=complex)
    turns = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > 0) & (roots.real < 1)]
    return float(max([0.0, 1.0, *turns], key=fitted))


def _as_matrices(order: Permutations) -> Soft:
    """Write index vectors as matrices."""
    return {name: _matrix(indices, torch.float32) for name, indices in order.items()}


def _matrix(indices: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.nn.functional.one_hot(indices, indices.shape[-1]).to(dtype)
