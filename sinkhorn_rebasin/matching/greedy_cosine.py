"""Greedy cosine matching: the most similar pair of units first, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import NetworkLike
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.layer_by_layer import match_layer_by_layer
from sinkhorn_rebasin.matching.pair_of_states import as_states
from sinkhorn_rebasin.permutations import PermutationSpec


def greedy_cosine(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    generator: torch.Generator | None = None,
    ignore: Sequence[str] = (),
) -> Alignment:
    r"""Pair units by the angle of their weights.

    It is the angle between their incoming weights, the smallest first, layer by layer.

    .. math:: (i, \pi(i)) = \arg\max_{i, j \text{ still free}}
        \frac{\langle w_i, v_j \rangle}{\lVert w_i \rVert\, \lVert v_j \rVert}

    with w_i and v_j all that comes into unit i of the reference and unit j of the target, bias and norm
    parameters included, the layers before already matched. Lengths do not count, which suits networks whose
    units may be rescaled (ReLU, batch norm).

    Args:
        reference, target: networks of one architecture, as modules, states or paths; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data, generator: not needed; part of the protocol.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.

    Complexity: O(n³) for a group of n units, in n sweeps over the matrix of cosines; a single pass. Use it as a
    fast baseline; :func:`weight_matching` also sees outgoing weights and is seldom worse.

    Raises:
        ArchitectureError: when the networks differ.
        SpecError: when the spec is of another network, or has nested groups, which are named.

    Example:
        >>> from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> spec = discover_symmetry(net, torch.randn(3, 5))
        >>> planted = random_permutations(spec)
        >>> target = permute_state(net.state_dict(), spec, planted)
        >>> torch.equal(greedy_cosine(net, target, spec).permutations["0"], inverse(spec, planted)["0"])
        True

    Source: Pittorino et al., "Deep networks on toroids: removing symmetries reveals the structure of flat regions
    in the landscape geometry" (2022).
    """
    return match_layer_by_layer(as_states(reference, target, spec, ignore), _choose, method="greedy_cosine")


def _choose(ours: Tensor, theirs: Tensor) -> tuple[Tensor, float]:
    cosines = nn.functional.normalize(ours, dim=1) @ nn.functional.normalize(theirs, dim=1).mT
    return greedy_assignment(cosines)


def greedy_assignment(similarity: Tensor) -> tuple[Tensor, float]:
    """Pair the most similar row and column first.

    Both are set aside, and so on. Returns the indices (n,) and what they sum to.

    >>> greedy_assignment(torch.tensor([[0.9, 1.0], [0.0, 0.8]]))
    (tensor([1, 0]), 1.0)
    """
    size = len(similarity)
    free = similarity.clone()
    indices, total = torch.empty(size, dtype=torch.long), 0.0
    for _ in range(size):
        row, column = divmod(int(free.argmax()), size)
        indices[row] = column
        total += float(similarity[row, column])
        free[row], free[:, column] = -torch.inf, -torch.inf
    return indices, total
