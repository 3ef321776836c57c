"""Draw weights and permutations to verify symmetries at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.permutations import Group, PermutationSpec, permute_tensor
from sinkhorn_rebasin.permutations.algebra import random_permutation

FEW = 64
"""Entries that are looked at first."""


def perturbed(state: Mapping[str, Tensor], spec: PermutationSpec, generator: torch.Generator) -> State:
    """Move weights a little, up as much as down.

    Note:
        - Weights of one sign keep the sign (variances, scales).
        - Tied tensors stay tied.
        - A common shift would drive outputs to saturation, such as a softmax of 0 and 1.
    """
    moved: dict[int, Tensor] = {}
    for name, tensor in state.items():
        if (
            name in spec.shapes
            and id(tensor) not in moved
            and (tensor.is_floating_point() or tensor.is_complex())
        ):
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype, device=generator.device)
            noise = noise.to(tensor.device)
            moved[id(tensor)] = _moved(tensor.detach(), noise)
    return {name: moved.get(id(tensor), tensor) for name, tensor in state.items()}


def _moved(weights: Tensor, noise: Tensor) -> Tensor:
    """Move weights by noise, in the noise's memory.

    They become weights * (1 + 0.1 noise) + 0.01 noise, centered where signs differ.

    Fresh memory costs more than a pass over it.
    """
    if weights.layout != torch.strided or not weights.is_floating_point():
        shift = 0.01 * (noise if _has_one_sign(weights) else 2 * noise - 1)
        return weights * (1 + 0.1 * noise) + shift
    shift = 0.01 * noise if _has_one_sign(weights) else (2 * noise).sub_(1).mul_(0.01)
    return noise.mul_(0.1).add_(1).mul_(weights).add_(shift)


def scrambled(state: Mapping[str, Tensor], spec: PermutationSpec) -> State:
    """Permute each tensor alone, so that nothing fits."""
    generator = torch.Generator("cpu").manual_seed(0)
    moved: dict[int, Tensor] = {}
    for name, tensor in state.items():
        if spec.slots_on(name) and id(tensor) not in moved:
            slots = spec.slots_on(name)
            groups = [spec[group] for group in dict.fromkeys(slot.group for slot in slots)]
            moved[id(tensor)] = permute_tensor(tensor, slots, _without_still_blocks(groups, generator))
    return {name: moved.get(id(tensor), tensor) for name, tensor in state.items()}


def _has_one_sign(tensor: Tensor) -> bool:
    """Tell whether no entries differ in sign."""
    if tensor.is_complex():
        return False
    if tensor.layout != torch.strided:
        return True
    # Most weights show both signs at once.
    few = tensor.flatten()[:FEW] if tensor.is_contiguous() else tensor
    if few.numel() < tensor.numel() and bool((few < 0).any() & (few > 0).any()):
        return False
    return not bool((tensor < 0).any() & (tensor > 0).any())


def nonidentity_permutations(spec: PermutationSpec, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw permutations that leave no whole block in place."""
    return _without_still_blocks(spec.groups, generator)


def _without_still_blocks(groups: Sequence[Group], generator: torch.Generator) -> dict[str, Tensor]:
    drawn = {}
    for group in groups:
        blocks = random_permutation(group, generator).reshape(group.blocks, group.size)
        still = (blocks == torch.arange(group.size, device=blocks.device)).all(-1, keepdim=True)
        drawn[group.name] = torch.where(still, blocks.roll(1, -1), blocks).reshape(group.shape)
    return drawn
