"""Optimal-transport fusion: units are moved, layer by layer, where their incoming weights are nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import NetworkLike
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.matching.across_widths.transport_plan import transport_plan, unit_distances
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.layer_by_layer import match_layer_by_layer
from sinkhorn_rebasin.matching.pair_of_states import as_states
from sinkhorn_rebasin.permutations import PermutationSpec


def ot_fusion(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    generator: torch.Generator | None = None,
    ignore: Sequence[str] = (),
) -> Alignment:
    r"""Transport the target's units at least cost.

    They are carried to the reference's, layer by layer.

    .. math:: T = \arg\min_{T \ge 0} \sum_{ij} T_{ij} \lVert w_i - v_j \rVert_2
        \quad\text{with}\quad T 1 = T^\top 1 = \tfrac1n 1

    with w_i and v_j all that comes into unit i of the reference and unit j of the target, bias and norm
    parameters included, the layers before already matched. Between equally many units of equal mass the optimal
    plan is a permutation over n, which is returned. Unlike an inner product the distance itself, not squared, is
    less led by single large weights.

    Args:
        reference, target: networks of one architecture, as modules, states or paths; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data, generator: not needed; part of the protocol.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.

    Complexity: O(n³ log n) for a group of n units (network simplex of POT); a single pass. Use it as a baseline
    beside :func:`weight_matching`, which also sees outgoing weights. For networks of different widths there is
    :func:`ot_fusion_across_widths`.

    Raises:
        AssignmentError: when weights are not finite.
        ImportError: when POT is not installed.
        ArchitectureError: when the networks differ.
        SpecError: when the spec is of another network, or has nested groups, which are named.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> spec = discover_symmetry(net, torch.randn(3, 5))
        >>> planted = random_permutations(spec)
        >>> target = permute_state(net.state_dict(), spec, planted)
        >>> torch.equal(ot_fusion(net, target, spec).permutations["0"], inverse(spec, planted)["0"])
        True

    Source: Singh, Jaggi, "Model fusion via optimal transport" (2020); solver: Flamary et al., "POT: Python Optimal
    Transport" (2021).
    """
    return match_layer_by_layer(as_states(reference, target, spec, ignore), _transport, method="ot_fusion")


def _transport(ours: Tensor, theirs: Tensor) -> tuple[Tensor, float]:
    """Compute the optimal plan and its cost.

    The plan is one between units of equal mass, given as indices.
    """
    cost = unit_distances(ours, theirs)
    indices = hard_assignment(transport_plan(cost))
    return indices, float(cost.gather(1, indices[:, None]).mean())
