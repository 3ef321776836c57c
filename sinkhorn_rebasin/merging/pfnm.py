"""PFNM: one hidden layer of several owners' networks, with as many units as their posterior asks for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.weights.similarity import units_of
from sinkhorn_rebasin.merging.growing import Owned, grown, owned_networks, scaled_by_unit
from sinkhorn_rebasin.merging.states import mean_state
from sinkhorn_rebasin.merging.unit_posterior import UnitPrior, assign_units
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.permutations import Group


def pfnm(
    networks: Sequence[nn.Module],
    example_inputs: ExampleInputs,
    *,
    shares: Sequence[float] | None = None,
    prior: UnitPrior | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""Merge networks of one hidden layer by PFNM.

    The name stands for probabilistic federated neural matching.

    Each unit, with all that comes in and goes out, is assigned to a global unit or becomes a new one, by the
    posterior of a Beta-Bernoulli process of Gaussian units: see :class:`UnitPrior`. A global unit is the posterior
    mean of those assigned to it,

    .. math:: \mu_g = \frac{\sum_{(j, l) \in g} w_{jl} / \sigma_j^2}
        {1 / \sigma_0^2 + \sum_{(j, l) \in g} 1 / \sigma_j^2}

    and what no unit owns, as the last bias, is the mean weighted by shares.

    Args:
        networks: at least two, of one architecture; the numbers of units may differ. None is changed.
        example_inputs: a tensor, tuple or dict that the networks take, to discover symmetries with. Only its shape
            counts: no data is looked at.
        shares: of the samples, one a network, adding up to 1; equal without them.
        prior: σ, σ_0, γ; the defaults are those published.
        generator: draws the orders; without it a fixed order of its own is used.

    Returns:
        A network of the first one's class. Its width is the number of global units.

    Raises:
        ArchitectureError: more or fewer than one hidden layer, networks that differ in more than units, or shares
            that do not add up to 1.
        AssignmentError: a prior out of range.

    Note:
        - A unit that few networks have is not averaged with zeros: its outgoing weights count in full.
        - Means are drawn towards zero by n / (n + σ² / σ_0²).

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> merged = pfnm([net, net], torch.randn(4, 3), prior=UnitPrior(sigma=0.01, sigma_0=10.0))
        >>> torch.allclose(merged[0].weight, net[0].weight, atol=1e-5)
        True

    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks" (2019).
    """
    prior = prior or UnitPrior()
    owners = owned_networks(networks, example_inputs, shares, "pfnm")
    group = _hidden_layer(owners[0])
    features = [_features(owned, group.name) for owned in owners]
    places = assign_units(features, [owned.share for owned in owners], prior, generator)
    size = 1 + max(int(each.max()) for each in places)
    wide = [
        grown(owned, group.name, each, size, example_inputs)
        for owned, each in zip(owners, places, strict=True)
    ]
    precisions = [len(owners) * owned.share / prior.sigma**2 for owned in owners]
    held = torch.zeros(size, dtype=torch.float64)
    for each, precision in zip(places, precisions, strict=True):
        held[each] += precision
    # Zeros of units that a network has not add nothing to the mean by shares: only its divisor is another.
    factors = len(owners) / prior.sigma**2 / (1 / prior.sigma_0**2 + held)
    merged = mean_state([owned.state for owned in wide], [owned.share for owned in wide])
    spec = wide[0].spec
    for slot in spec.slots_of(group.name):
        merged[slot.tensor] = scaled_by_unit(merged[slot.tensor], slot, factors)
    return resized(wide[0].network, merged)


def _hidden_layer(owned: Owned) -> Group:
    """Return the group of the only hidden layer.

    Raises:
        ArchitectureError: there are others, or its units stand on two axes of one tensor, or there are buffers.
    """
    spec = owned.spec
    plain = [group for group in spec.groups if group.parent is None and group.blocks == 1]
    if len(spec.groups) != 1 or len(plain) != 1:
        raise ArchitectureError(
            f"Expected one hidden layer for pfnm but got the groups {spec.names}: use fedma, "
            "which goes layer by layer."
        )
    group = spec.groups[0]
    tensors = [slot.tensor for slot in spec.slots_of(group.name)]
    again = sorted({name for name in tensors if tensors.count(name) > 1 or name in spec.buffers})
    if again:
        raise ArchitectureError(
            f"Expected a hidden layer whose units own weights and biases alone for pfnm but group {group.name!r} "
            f"stands on {again[0]!r}, a buffer or a matrix that leads back to it: use fedma."
        )
    return group


def _features(owned: Owned, group: str) -> torch.Tensor:
    state = owned.state
    rows = [units_of(state[slot.tensor], slot)[0].double() for slot in owned.spec.slots_of(group)]
    return torch.cat(rows, 1)
