"""Pairs of small networks with continuous symmetries of every kind, and re-basins of them at random maps."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.models.transformer import ViT
from sinkhorn_rebasin import SinkhornRebasin, canonicalize, discover_continuous, discover_symmetry
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from tests.symmetry.continuous.small_networks import Attention, Block, Language, perceptron


class SeenMean(nn.Module):
    """Linear layers with a mean between them: every map that keeps the ones vector is free."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        mean = hidden.mean(-1, keepdim=True)
        return self.last(hidden) + mean.tanh()


class Pair(NamedTuple):
    """Two networks in canonical form and double precision, with inputs and their symmetries."""

    reference: nn.Module
    target: nn.Module
    inputs: Tensor
    spec: PermutationSpec
    continuous: ContinuousSpec


WORDS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0]])
BUILD = {
    "layer norm": lambda: ViT(size=8, patch=4, width=8, depth=1, heads=2, hidden=12),
    "RMS norm": lambda: Language(Block(Attention(), nn.RMSNorm)),
    "rotary": lambda: Language(Block(Attention(rotary=True), nn.RMSNorm)),
    "partial rotary": lambda: Language(Block(Attention(rotary=True, turning=2), nn.RMSNorm)),
    "normed rotary": lambda: Language(Block(Attention(normed=True, rotary=True), nn.RMSNorm)),
    "grouped queries": lambda: Language(Block(Attention(keys=2, heads=4), nn.RMSNorm)),
    "bottleneck": lambda: perceptron(nn.ReLU(), nn.Identity(), nn.GELU()),
    "mean": SeenMean,
}
KINDS = {
    "layer norm": {"orthogonal, X1 = 1", "linear"},
    "RMS norm": {"orthogonal", "linear"},
    "rotary": {"orthogonal", "linear", "rotary"},
    "partial rotary": {"orthogonal", "linear", "rotary"},
    "normed rotary": {"orthogonal", "linear", "rotary"},
    "grouped queries": {"orthogonal", "linear"},
    "bottleneck": {"linear"},
    "mean": {"linear, X1 = 1"},
}


def raw(name: str, seed: int) -> nn.Module:
    """One network as it was built, no vector at a special value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BUILD[name]().double().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def inputs_of(name: str) -> Tensor:
    """A few inputs of the network."""
    drawn = torch.Generator().manual_seed(5)
    if name == "layer norm":
        return torch.randn(3, 3, 8, 8, generator=drawn, dtype=torch.float64)
    return (
        torch.randn(4, 5, generator=drawn, dtype=torch.float64) if name in ("bottleneck", "mean") else WORDS
    )


@cache
def pair(name: str) -> Pair:
    """Two draws of one architecture."""
    networks, inputs = [raw(name, seed) for seed in (0, 1)], inputs_of(name)
    spec = discover_symmetry(networks[0], inputs)
    continuous = discover_continuous(networks[0], spec, inputs)
    kinds = {each.kind + ", X1 = 1" * each.fixes_ones for each in continuous.symmetries}
    assert kinds == KINDS[name]
    return Pair(
        *(canonicalize(each, spec, continuous, inputs) for each in networks), inputs, spec, continuous
    )


def rebasin_of(name: str, seed: int | None = 0, **options: Any) -> SinkhornRebasin:
    """A re-basin of the pair; with a seed at random scores, angles and stretches."""
    given = pair(name)
    options = {"start": "identity", "check": False, "learn_permutations": True, **options}
    rebasin = SinkhornRebasin(
        given.reference, given.target, given.inputs, spec=given.spec, symmetry=given.continuous, **options
    )
    if seed is not None:
        scatter(rebasin, seed)
    return rebasin


@torch.no_grad()
def scatter(rebasin: SinkhornRebasin, seed: int) -> None:
    """Draw all parameters, far from where they were."""
    drawn = torch.Generator().manual_seed(seed)
    for name, parameter in rebasin.named_parameters():
        size = 0.3 if "mixtures" in name else 1.0
        parameter.copy_(size * torch.randn(parameter.shape, generator=drawn, dtype=parameter.dtype))
