"""What describes a random network: its repr is enough to build it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

# Where the channels of a tensor are: behind (batch, channels) and (batch, length, channels), or second.
VECTOR, SEQUENCE, SIGNAL, IMAGE, VOLUME = "vector", "sequence", "signal", "image", "volume"
LAST = (VECTOR, SEQUENCE)


@dataclass(frozen=True)
class Block:
    """One block: its kind, how wide it is, its options, and how it is wired in.

    Attributes:
        back: which earlier tensor it reads; 1 is the one before it.
        join: how its output meets the tensor before it.
        activation: the function its output passes through.
    """

    kind: str
    width: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    back: int = 1
    join: str = "none"
    activation: str = "identity"


@dataclass(frozen=True)
class Plan:
    """A network: what it reads, its blocks in order, how it ends, and the seed of its weights and inputs."""

    domain: str
    width: int
    blocks: tuple[Block, ...]
    stem: str = "plain"
    head: str = "mean"
    seed: int = 0


@dataclass(frozen=True)
class Kind:
    """A kind of block: the family it belongs to, the domains it works on, and the values of its options."""

    name: str
    families: tuple[str, ...]
    domains: tuple[str, ...]
    options: Mapping[str, tuple[Any, ...]]
    make: Callable[..., nn.Module]


KINDS: dict[str, Kind] = {}


def kind(
    families: str, domains: str | tuple[str, ...], **options: tuple[Any, ...]
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register a maker (shape, width, options) of blocks under its own name."""

    def register(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        where = (domains,) if isinstance(domains, str) else domains
        KINDS[make.__name__] = Kind(make.__name__, tuple(families.split()), where, options, make)
        return make

    return register


def channel_axis(domain: str) -> int:
    """The axis of the channels."""
    return -1 if domain in LAST else 1
