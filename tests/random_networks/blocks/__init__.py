"""Every kind of block, by idea."""

from tests.random_networks.blocks import (
    attention,
    attention_positions,
    convolution,
    dense,
    experts,
    gates,
    indexing,
    movement,
    normalisation,
    pooling,
    recurrence,
    reduction,
    scans,
    transformers,
    wiring,
)

__all__ = [
    "attention",
    "attention_positions",
    "convolution",
    "dense",
    "experts",
    "gates",
    "indexing",
    "movement",
    "normalisation",
    "pooling",
    "recurrence",
    "reduction",
    "scans",
    "transformers",
    "wiring",
]
