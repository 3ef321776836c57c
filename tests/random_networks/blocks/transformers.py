"""Whole transformer layers of PyTorch."""

from __future__ import annotations

import math

from torch import nn

from tests.random_networks.blocks.dense import Shape
from tests.random_networks.plan import SEQUENCE, kind
from tests.zoo.case import Function


@kind("attention transformer", SEQUENCE, first=(False, True), activation=("relu", "gelu"), bias=(True, False))
def encoder_layer(shape: Shape, width: int, first: bool, activation: str, bias: bool) -> nn.Module:
    c = shape[2]
    return nn.TransformerEncoderLayer(
        *(c, math.gcd(c, 2), width),
        activation=activation,
        norm_first=first,
        batch_first=True,
        bias=bias,
        layer_norm_eps=0.1,
    )


@kind("attention transformer", SEQUENCE, first=(False, True))
def decoder_layer(shape: Shape, width: int, first: bool) -> nn.Module:
    c = shape[2]
    layer = nn.TransformerDecoderLayer(
        c, math.gcd(c, 2), width, norm_first=first, batch_first=True, layer_norm_eps=0.1
    )
    return Function(lambda net, x: net.layer(x, net.memory(x).tanh()), memory=nn.Linear(c, c), layer=layer)


@kind("attention transformer", SEQUENCE)
def shared_layers(shape: Shape, width: int) -> nn.Module:
    """One encoder layer, twice (as in ALBERT)."""
    c = shape[2]
    layer = nn.TransformerEncoderLayer(c, math.gcd(c, 2), width, batch_first=True, layer_norm_eps=0.1)
    return nn.Sequential(layer, layer)
