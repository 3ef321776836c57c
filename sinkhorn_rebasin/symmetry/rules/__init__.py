"""What each family of operations does to labels; one file a family, found through one registry."""

from sinkhorn_rebasin.symmetry.rules import (
    complex_numbers,
    contraction,
    convolution,
    indexing,
    movement,
    normalization,
    ordering,
    pointwise,
    pooling,
    randomness,
    reduction,
    scattering,
    shuffling,
    strided,
    windows,
)
from sinkhorn_rebasin.symmetry.rules.registry import find_rule, register_rule

__all__ = [
    "complex_numbers",
    "contraction",
    "convolution",
    "find_rule",
    "indexing",
    "movement",
    "normalization",
    "ordering",
    "pointwise",
    "pooling",
    "randomness",
    "reduction",
    "register_rule",
    "scattering",
    "shuffling",
    "strided",
    "windows",
]
