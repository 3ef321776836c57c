"""Networks of several owners on their way to common units, of which there may be more than each has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.given_networks import check_weights
from sinkhorn_rebasin.matching.across_widths.padding import check_like
from sinkhorn_rebasin.matching.across_widths.widening import widen_into
from sinkhorn_rebasin.merging.states import check_several, check_shares
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.permutations import PermutationSpec, Slot, identity_permutations, permute_state
from sinkhorn_rebasin.symmetry import discover_symmetry


@dataclass(frozen=True)
class Owned:
    """Hold one owner's network, symmetries and share.

    Attributes:
        network: a plain module, the caller's own or a copy.
        spec: its symmetries.
        share: of all samples.
    """

    network: nn.Module
    spec: PermutationSpec
    share: float

    @property
    def state(self) -> State:
        """Return the network's tensors."""
        return tensors_of(self.network)


def owned_networks(
    networks: Sequence[nn.Module], example_inputs: ExampleInputs, shares: Sequence[float] | None, method: str
) -> list[Owned]:
    """Discover the symmetries of every owner's network.

    They are of one architecture; their widths may differ.

    Raises:
        ArchitectureError: fewer than two networks, something that is no module, shares that do not add up to 1 or
            are not above zero, weights that are no numbers, or networks that differ in more than widths.
    """
    check_several(networks, "to merge")
    for number, network in enumerate(networks):
        if not isinstance(network, nn.Module):
            raise ArchitectureError(
                f"Expected modules for {method}, whose result may be wider than each, but got "
                f"{type(network).__name__} for network {number}."
            )
    shares = check_shares(shares, len(networks))
    if min(shares) <= 0:
        raise ArchitectureError(f"Expected shares above 0 but got {min(shares):g}.")
    specs: dict[str, PermutationSpec] = {}
    owned = []
    for number, (network, share) in enumerate(zip(networks, shares, strict=True)):
        state = tensors_of(network)
        key = str([(name, tuple(tensor.shape)) for name, tensor in state.items()])
        specs[key] = specs.get(key) or discover_symmetry(network, example_inputs)
        check_weights(state, f"network {number}", specs[key].parameters)
        owned.append(Owned(network, specs[key], share))
        _check_alike(owned[0].spec, specs[key])
    return owned


def grown(owned: Owned, group: str, places: Tensor, size: int, example_inputs: ExampleInputs) -> Owned:
    """Put a group's units at places among more.

    All units that are new are zeros.

    Args:
        owned: the network; it is not changed.
        group: name of the group.
        places: of its units.
        size: how many units the group has then.
        example_inputs: what the network takes; that it computes the same is proven.

    Raises:
        ArchitectureError: a tensor or layer that cannot be of another width; it is named.
        SymmetryError: the wider network computes something else, as under layer norm.
    """
    network, spec, count = owned.network, owned.spec, len(places)
    if size > count:
        draw = torch.Generator().manual_seed(0)
        shapes = _wider_shapes(spec, group, size)
        state = {
            name: _drawn(tensor, shapes.get(name, tensor.shape), draw) for name, tensor in owned.state.items()
        }
        like = resized(network, state)
        larger = discover_symmetry(like, example_inputs)
        network, spec = widen_into(network, like, spec, larger, example_inputs), larger
    held = set(places.tolist())
    order = torch.empty(size, dtype=torch.long)
    order[places] = torch.arange(count)
    order[torch.tensor([place for place in range(size) if place not in held], dtype=torch.long)] = (
        torch.arange(count, size)
    )
    orders = {**identity_permutations(spec), group: order}
    moved = permute_state(tensors_of(network), spec, orders)
    return replace(owned, network=resized(network, moved), spec=spec)


def scaled_by_unit(tensor: Tensor, slot: Slot, factors: Tensor) -> Tensor:
    """Multiply each unit's entries by its own number.

    Example:
        >>> from sinkhorn_rebasin.permutations import Layout
        >>> scaled_by_unit(torch.ones(3), Slot("a", "b", (0,), Layout(1, 2)), torch.tensor([2.0, 3.0])).tolist()
        [2.0, 3.0, 1.0]
    """
    sizes = [tensor.shape[axis] for axis in slot.axes]
    along = torch.ones(math.prod(sizes), dtype=factors.dtype)
    table = torch.from_numpy(slot.layout.table()).reshape(slot.layout.blocks * slot.layout.size, -1)
    along[table.reshape(-1)] = factors.repeat_interleave(table.shape[1])
    shape = [tensor.shape[axis] if axis in slot.axes else 1 for axis in range(tensor.dim())]
    ordered = along.reshape(sizes).permute(torch.tensor(slot.axes).argsort().tolist())
    return tensor * ordered.reshape(shape).to(tensor.device, tensor.dtype)


def _check_alike(first: PermutationSpec, other: PermutationSpec) -> None:
    """Raise ArchitectureError unless specs differ in widths alone."""
    smaller = all(group.name in other and group.size <= other[group.name].size for group in first.groups)
    try:
        check_like(*((first, other) if smaller else (other, first)))
    except ArchitectureError as error:
        # Some groups may be wider in the one, some in the other: only what else differs is refused.
        if "units of group" not in str(error):
            raise
    for name, shape in other.shapes.items():
        if _beside_units(first, name) != _beside_units(other, name):
            raise ArchitectureError(
                f"Expected {name!r} to differ between the networks in its hidden units alone but got shapes "
                f"{tuple(first.shapes[name])} and {tuple(shape)}: give all networks the same inputs, and one head "
                f"with a row for every class."
            )


def _beside_units(spec: PermutationSpec, name: str) -> list[int | None]:
    """Count what is no unit of a group, axis by axis; None where groups are nested or on several axes."""
    rest: list[int | None] = list(spec.shapes[name])
    for slot in spec.slots_on(name):
        group = spec[slot.group]
        for axis in slot.axes:
            size = rest[axis]
            if size is None or len(slot.axes) > 1 or group.parent is not None or group.blocks > 1:
                rest[axis] = None
            else:
                rest[axis] = size - group.size * slot.layout.width
    return rest


def _wider_shapes(spec: PermutationSpec, group: str, size: int) -> dict[str, tuple[int, ...]]:
    shapes = {slot.tensor: list(spec.shapes[slot.tensor]) for slot in spec.slots_of(group)}
    for slot in spec.slots_of(group):
        if len(slot.axes) > 1:
            raise ArchitectureError(
                f"Expected the units of group {group!r} on one axis of {slot.tensor!r} each, so that there can be "
                f"more of them, but got axes {slot.axes}."
            )
        shapes[slot.tensor][slot.axes[0]] += (size - spec[group].size) * slot.layout.width
    return {name: tuple(shape) for name, shape in shapes.items()}


def _drawn(tensor: Tensor, shape: Sequence[int], draw: torch.Generator) -> Tensor:
    if tuple(shape) == tuple(tensor.shape):
        return tensor
    return torch.rand(tuple(shape), generator=draw).add(0.5).to(tensor)
