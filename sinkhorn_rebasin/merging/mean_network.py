"""Aligned networks, and their mean, as plain networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, StateLike
from sinkhorn_rebasin.activations import repair as repaired
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.permutations import PermutationSpec


def mean_network(
    networks: Sequence[NetworkLike],
    states: Sequence[StateLike],
    mean: StateLike,
    spec: PermutationSpec,
    shares: Sequence[float],
    repair: Iterable[Any] | None,
    batch: BatchAdapter | None,
) -> nn.Module:
    """Return a mean as a plain network.

    It is of the first one's class.

    Args:
        networks: as they were given; none is changed.
        states: theirs, in the order of the first.
        mean: of the states.
        spec: their symmetries.
        shares: of the mean.
        repair: batches to do REPAIR with.
        batch: a function from a batch to (inputs, labels).

    Raises:
        ArchitectureError: no network is a module that runs.
    """
    first = modules_with(networks, [mean])[0]
    if repair is None:
        return first
    aligned = modules_with(networks, states)
    return repaired(first, aligned[0], aligned[1:], spec, repair, at=list(shares), batch=batch)


def modules_with(networks: Sequence[NetworkLike], states: Sequence[StateLike]) -> list[nn.Module]:
    """Return networks with other tensors, each a module.

    A network that is a state runs as the first that is a module.

    Raises:
        ArchitectureError: there is none.
    """
    runs = next((network for network in networks if isinstance(network, nn.Module)), None)
    if runs is None:
        raise ArchitectureError(
            "Expected a module among the networks, which can be run, but got states alone: pass one of them as a "
            "module."
        )
    twins = []
    for network, state in zip(networks, states, strict=False):
        twin = standalone_copy(network if isinstance(network, nn.Module) else runs)
        twin.load_state_dict(dict(state), strict=False)
        twins.append(twin.eval())
    return twins
