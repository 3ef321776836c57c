"""Several networks as states, their mean, and the sum of products that methods raise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import NetworkLike, State, StateLike
from sinkhorn_rebasin.connectivity.interpolation import singular_vectors
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.pair_of_states import as_states, comparable_states
from sinkhorn_rebasin.networks.architecture import real_view, single_precision
from sinkhorn_rebasin.networks.support import check_not_parallel, check_values
from sinkhorn_rebasin.permutations import PermutationSpec


def check_several(networks: Sequence[object], purpose: str) -> None:
    """Raise ArchitectureError unless networks are a list of at least two.

    >>> check_several([nn.Linear(1, 1), nn.Linear(1, 1)], "to merge")
    """
    if not isinstance(networks, (Sequence, nn.ModuleList)) or isinstance(networks, (str, bytes)):
        raise ArchitectureError(
            f"Expected a list of at least two networks {purpose} but got {type(networks).__name__}: pass "
            f"[first, second]."
        )
    if len(networks) < 2:
        raise ArchitectureError(f"Expected at least two networks {purpose} but got {len(networks)}.")


def check_modules(networks: Mapping[str, object]) -> None:
    """Raise ArchitectureError unless networks run; they come by what they are called.

    Their layers must be built, and their weights tensors.

    >>> check_modules({"the merge": nn.Linear(1, 1)})
    """
    for name, network in networks.items():
        if not isinstance(network, nn.Module):
            raise ArchitectureError(
                f"Expected {name} to be a module, which is run, but got {type(network).__name__}: load a state into "
                f"its network first, or merge by to_model()."
            )
        check_not_parallel(network)
        check_values(network)


def states_of(networks: Sequence[NetworkLike], spec: PermutationSpec) -> tuple[list[State], PermutationSpec]:
    """Read the states of several networks of one architecture.

    Returns:
        The states, and the spec, in which last layers of other shapes are ignored.

    Raises:
        ArchitectureError, SpecError: fewer than two networks, or networks that differ from each other or the spec.
    """
    check_several(networks, "to merge")
    first, *others = networks
    for other in others:
        spec = as_states(first, other, spec, stacklevel=4).spec
    pairs = [as_states(first, other, spec) for other in others]
    finite = [comparable_states(pair.reference, pair.target, spec) for pair in pairs]
    return [finite[0][0], *(target for _, target in finite)], spec


def mean_state(
    states: Sequence[StateLike], shares: Sequence[float] | None = None, whole: Collection[str] = ()
) -> State:
    r"""Return the weighted mean of states, :math:`\sum_m w_m \theta_m`.

    Whole numbers are the first one's, and tensors in ``whole`` those of the largest share.

    >>> mean_state([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}])["w"].item()
    2.0
    """
    shares = [1 / len(states)] * len(states) if shares is None else shares
    largest = states[list(shares).index(max(shares))]
    return {
        name: largest[name].clone() if name in whole else _mixed([state[name] for state in states], shares)
        for name in states[0]
    }


def without_mean(networks: Sequence[NetworkLike]) -> frozenset[str]:
    """Name the float buffers of networks that have no mean: see :func:`singular_vectors`.

    Only a module tells; among states alone there are none.
    """
    modules = (network for network in networks if isinstance(network, nn.Module))
    return frozenset().union(*(singular_vectors(module) for module in modules))


def check_shares(shares: Sequence[float] | None, count: int) -> list[float]:
    """Return one share a network, equal ones without any.

    Raises:
        ArchitectureError: another number of shares, or shares that do not add up to one.
    """
    if not count:
        raise ArchitectureError("Expected at least one alignment but got none.")
    if shares is None:
        return [1 / count] * count
    try:
        given = [float(share) for share in shares]
    except (TypeError, ValueError):
        raise ArchitectureError(
            f"Expected one share a network, {count} numbers that add up to 1, but got {shares!r}."
        ) from None
    if len(given) != count:
        raise ArchitectureError(f"Expected one share a network, {count} of them, but got {len(given)}.")
    if not abs(sum(given) - 1) < 1e-6:
        raise ArchitectureError(f"Expected shares that add up to 1 but got a sum of {sum(given):g}.")
    return given


def sum_of_products(states: Sequence[Mapping[str, Tensor]], names: Iterable[str]) -> float:
    r"""Return :math:`\sum_{p<q} \langle \theta_p, \theta_q \rangle = (\lVert \sum_p \theta_p \rVert^2 - \sum_p
    \lVert \theta_p \rVert^2) / 2` over the named tensors.

    >>> sum_of_products([{"w": torch.ones(2)}, {"w": torch.ones(2)}, {"w": torch.zeros(2)}], ["w"])
    2.0
    """
    total = 0.0
    for name in names:
        each = torch.stack([real_view(state[name]).double() for state in states])
        total += float(each.sum(0).square().sum() - each.square().sum()) / 2
    return total


def _mixed(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    first = tensors[0]
    if not (first.is_floating_point() or first.is_complex()):
        return first.clone()
    # What has no share does not count: zero times infinity is no number.
    counted = [(tensor, share) for tensor, share in zip(tensors, shares, strict=True) if share]
    parts = [single_precision(tensor).to(first.device) * share for tensor, share in counted]
    wide = parts[0]
    for part in parts[1:]:
        wide = wide + part
    return wide.to(first.dtype)
