"""The mean of several networks, with the heads that each of them keeps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from sinkhorn_rebasin._typing import NetworkLike, StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.separate_heads import SeparateHeads, check_kept_apart


def check_each(heads: object, networks: Sequence[NetworkLike], apart: Collection[str]) -> None:
    """Raise ArchitectureError unless each network can keep its head.

    >>> check_each("each", [nn.Linear(1, 1)], ["weight"])
    """
    if heads != "each":
        raise ArchitectureError(f"Expected heads to be 'each' or None but got {heads!r}.")
    check_kept_apart(apart)
    for number, network in enumerate(networks):
        if not isinstance(network, nn.Module):
            raise ArchitectureError(
                f"Expected modules, whose heads run, for heads='each', but network {number} is "
                f"{type(network).__name__}."
            )


def with_own_heads(
    networks: Sequence[NetworkLike], trunk: StateLike, states: Sequence[StateLike], apart: Collection[str]
) -> SeparateHeads:
    """Put each network's own head on a trunk.

    Args:
        networks: modules; none is changed.
        trunk: the tensors that are not kept apart.
        states: of the networks in the trunk's order.
        apart: names of the tensors that each network keeps.
    """
    twins = {}
    for number, (network, state) in enumerate(zip(networks, states, strict=True)):
        assert isinstance(network, nn.Module)
        twins[str(number)] = standalone_copy(network)
        own = {name: tensor for name, tensor in state.items() if name in apart}
        twins[str(number)].load_state_dict({**trunk, **own}, strict=False)
    return SeparateHeads(twins, apart)
