"""From one domain to another, so that blocks of every kind can follow each other."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.random_networks.plan import IMAGE, SEQUENCE, SIGNAL, VECTOR, VOLUME

RANK = {SIGNAL: 1, IMAGE: 2, VOLUME: 3}
LONGEST = {1: 8, 2: 5, 3: 3}


def adapted(tensor: Tensor, domain: str, wanted: str) -> Tensor:
    """A tensor of one domain as one of another, its channels kept."""
    if domain == wanted:
        return tensor
    positions = flat_positions(tensor, domain)
    if wanted == VECTOR:
        return positions.mean(2)
    if wanted == SEQUENCE:
        return positions.transpose(1, 2)
    if wanted == SIGNAL:
        return positions
    return positions.reshape(*positions.shape[:2], *_square(positions.shape[2], RANK[wanted]))


def flat_positions(tensor: Tensor, domain: str) -> Tensor:
    """Any domain as (batch, channels, positions); a vector is repeated at four positions."""
    if domain == VECTOR:
        return tensor[:, :, None].expand(-1, -1, 4)
    return tensor.transpose(1, 2) if domain == SEQUENCE else tensor.flatten(2)


def _square(length: int, rank: int) -> tuple[int, ...]:
    """Sizes, as equal as they can be, whose product is a length."""
    if rank == 1:
        return (length,)
    side = max(d for d in range(1, length + 1) if length % d == 0 and d**rank <= length)
    return (side, *_square(length // side, rank - 1))


def limited(tensor: Tensor, domain: str) -> Tensor:
    """Only the first positions, and a tensor of few channels, so that no network grows."""
    if domain == SEQUENCE:
        return tensor[:, : LONGEST[1], :24]
    if domain == VECTOR:
        return tensor[:, :24]
    rank = RANK[domain]
    return tensor[(slice(None), slice(24), *[slice(LONGEST[rank])] * rank)]


def like(tensor: Tensor, domain: str, other: Tensor) -> Tensor:
    """A tensor with the positions of another one of its domain, by mean over positions where they differ."""
    if domain == VECTOR:
        return tensor
    axes = [1] if domain == SEQUENCE else list(range(2, tensor.dim()))
    if all(tensor.shape[a] == other.shape[a] for a in axes):
        return tensor
    shape = list(tensor.shape)
    for axis in axes:
        shape[axis] = other.shape[axis]
    return tensor.mean(axes, keepdim=True).expand(shape)


def example(domain: str, generator: torch.Generator) -> Tensor:
    """A small input of three channels."""
    shape = {
        VECTOR: (3, 3),
        SEQUENCE: (2, 6, 3),
        SIGNAL: (2, 3, 6),
        IMAGE: (2, 3, 4, 4),
        VOLUME: (2, 3, 2, 2, 3),
    }[domain]
    return torch.randn(shape, generator=generator)
