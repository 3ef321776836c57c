"""Masks of sparse networks: reading them from weights, and moving them with the units."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State, StateLike
from sinkhorn_rebasin.errors import SpecError, SymmetryError, listed
from sinkhorn_rebasin.permutations.action import permute_tensor
from sinkhorn_rebasin.permutations.algebra import check_permutations, is_hard
from sinkhorn_rebasin.permutations.spec import PermutationSpec

_MASK, _ORIGINAL = "_mask", "_orig"


def masks_of(state: StateLike) -> dict[str, Tensor]:
    """Read the masks of a sparse network.

    ``torch.nn.utils.prune`` keeps ``weight_mask`` beside ``weight_orig``; that is the mask of ``weight``. Of a
    network without, where pruning was made permanent, a mask says which weights are not zero; tensors of one axis and
    those without a zero have none.

    Args:
        state: tensor name to tensor, as of ``state_dict()``.

    Returns:
        Name of the weight to its mask, boolean, true where a weight is kept.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> from torch.nn.utils import prune
        >>> _ = prune.l1_unstructured(layer, "weight", amount=2)
        >>> {name: int(mask.sum()) for name, mask in masks_of(layer.state_dict()).items()}
        {'weight': 4}

    Source: the names are PyTorch's.
    """
    stored = {
        name.removesuffix(_MASK): mask.detach() != 0
        for name, mask in state.items()
        if name.endswith(_MASK) and name.removesuffix(_MASK) + _ORIGINAL in state
    }
    if stored:
        return stored
    numbers = {n: t.detach() for n, t in state.items() if t.is_floating_point() or t.is_complex()}
    weights = {name: tensor for name, tensor in numbers.items() if tensor.ndim > 1}
    return {name: tensor != 0 for name, tensor in weights.items() if bool((tensor == 0).any())}


def masked_state(state: StateLike, masks: Mapping[str, Tensor]) -> State:
    """Return a state whose masked weights are zero.

    Args:
        state: tensor name to tensor; not changed, and shared where there is no mask.
        masks: name of the weight to its mask.

    Raises:
        SpecError: a mask without a weight, or of another shape.

    Example:
        >>> state = {"weight": torch.ones(2, 2)}
        >>> masked_state(state, {"weight": torch.eye(2, dtype=torch.bool)})["weight"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    for name, mask in masks.items():
        if name not in state or state[name].shape != mask.shape:
            got = tuple(state[name].shape) if name in state else "no such tensor"
            raise SpecError(
                f"Expected a weight {name!r} of the mask's shape {tuple(mask.shape)} but got {got}."
            )
    return {
        name: torch.where(masks[name] != 0, tensor, torch.zeros_like(tensor)) if name in masks else tensor
        for name, tensor in state.items()
    }


def permute_masks(
    masks: Mapping[str, Tensor], spec: PermutationSpec, permutations: Permutations
) -> dict[str, Tensor]:
    r"""Carry masks to another place of their network's orbit.

    .. math:: \pi(m \odot \theta) = \pi(m) \odot \pi(\theta)

    So a masked network that is moved with its mask computes the same function and is as sparse. The mask of one
    network, moved by the alignment onto another, is a mask for the other.

    Args:
        masks: name of a weight to its mask, of any type; as of :func:`masks_of`. Weights without a mask are left out.
        spec: the symmetries of the network, dense or pruned.
        permutations: per group, long indices.

    Returns:
        A new dict of the same names and types.

    Raises:
        SpecError: soft permutations, those of another spec, or a mask of no weight or another shape.
        SymmetryError: a mask would keep another number of weights; its tensor is named.

    Example:
        >>> from sinkhorn_rebasin.permutations import random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> moved = permute_masks({"0.weight": net[0].weight > 0}, spec, random_permutations(spec))
        >>> int(moved["0.weight"].sum()) == int((net[0].weight > 0).sum())
        True

    Source: Adnan, Jain, Sharma, Krishnan, Ioannou, "Sparse Training from Random Initialization: Aligning Lottery
    Ticket Masks using Weight Symmetry" (2025).
    """
    check_permutations(spec, permutations)
    if not is_hard(permutations):
        raise SpecError(
            "Expected indices to move masks by, of which a mean is none, but got soft permutations."
        )
    moved = {}
    for name, mask in masks.items():
        place = _place_of(name, spec)
        if tuple(spec.shapes[place]) != tuple(mask.shape):
            raise SpecError(
                f"Expected the mask of {name!r} in shape {tuple(spec.shapes[place])} but got {tuple(mask.shape)}."
            )
        moved[name] = permute_tensor(mask, spec.slots_on(place), permutations).clone()
        if int((moved[name] != 0).sum()) != int((mask != 0).sum()):
            raise SymmetryError(
                f"Expected the mask of {name!r} to keep {int((mask != 0).sum())} weights but after the permutation "
                f"it keeps {int((moved[name] != 0).sum())}: its slots overlap."
            )
    return moved


def _place_of(name: str, spec: PermutationSpec) -> str:
    """Name the spec's tensor that a mask belongs to."""
    base = name.removesuffix(_MASK).removesuffix(_ORIGINAL)
    for place in (name, base + _MASK, base + _ORIGINAL, base):
        if place in spec.shapes:
            return place
    raise SpecError(
        f"Expected masks of the spec's weights, {listed(sorted(spec.shapes))}, but got one of {name!r}."
    )
