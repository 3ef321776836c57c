"""The group that is found is the one that theory says, for each kind of stream, head and bottleneck."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from experiments.models.resnet import ResNet
from experiments.models.transformer import GPT, ViT
from sinkhorn_rebasin import discover_continuous, discover_symmetry
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from tests.symmetry.continuous.small_networks import (
    Adapted,
    Attention,
    Block,
    HeadsOfTwoWidths,
    InvertedResidual,
    Language,
    Mixer,
    Packed,
    PlusOneNorm,
    PostNorm,
    SharedPositions,
    perceptron,
)

LN, RMS = nn.LayerNorm, nn.RMSNorm
WORDS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0]])


def tokens(model: nn.Module) -> Tensor:
    return WORDS


def rows(*shape: int) -> Callable[[nn.Module], Tensor]:
    return lambda model: torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def found_in(model: nn.Module, inputs: Tensor) -> ContinuousSpec:
    spec = discover_symmetry(model, inputs)
    continuous = discover_continuous(model, spec, inputs)
    assert continuous.error < 1e-9
    assert set(continuous.names) | set(continuous.reasons) >= set(spec.names)
    return continuous


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor], list[str]]] = {
    "ReLU": (lambda: perceptron(nn.ReLU(), nn.ReLU()), rows(4, 5), []),
    "tanh": (lambda: perceptron(nn.Tanh(), nn.Tanh()), rows(4, 5), []),
    "GELU": (lambda: perceptron(nn.GELU(), nn.GELU()), rows(4, 5), []),
    "bottleneck": (lambda: perceptron(nn.ReLU(), nn.Identity(), nn.GELU()), rows(4, 5), ["linear"]),
    "bottleneck of three": (
        lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 9), nn.GELU(), nn.Linear(9, 3)),
        rows(4, 5),
        ["linear"],
    ),
    "bottleneck of two": (
        lambda: nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 9), nn.GELU(), nn.Linear(9, 3)),
        rows(4, 5),
        ["linear"],
    ),
    "adapter": (Adapted, rows(4, 5), ["linear"]),
    "ViT": (
        lambda: ViT(size=8, patch=4, width=8, depth=1, heads=2, hidden=12),
        rows(2, 3, 8, 8),
        ["orthogonal ones", "linear", "linear"],
    ),
    "GPT": (
        lambda: GPT(9, context=5, width=8, depth=1, heads=2, hidden=12),
        tokens,
        ["orthogonal ones", "linear", "linear"],
    ),
    "Llama": (lambda: Language(Block(Attention(), RMS)), tokens, ["orthogonal", "linear", "linear"]),
    "Gemma": (
        lambda: Language(Block(Attention(), PlusOneNorm), norm=PlusOneNorm),
        tokens,
        ["orthogonal", "linear", "linear"],
    ),
    "grouped queries": (
        lambda: Language(Block(Attention(keys=2, heads=4), RMS)),
        tokens,
        ["orthogonal", "linear", "linear"],
    ),
    "norms of queries and keys": (
        lambda: Language(Block(Attention(normed=True), RMS)),
        tokens,
        ["orthogonal", "orthogonal", "linear"],
    ),
    "rotary": (
        lambda: Language(Block(Attention(rotary=True), RMS)),
        tokens,
        ["orthogonal", "linear", "rotary"],
    ),
    "rotary with grouped queries": (
        lambda: Language(Block(Attention(keys=2, heads=4, rotary=True), RMS)),
        tokens,
        ["orthogonal", "linear", "rotary"],
    ),
    "heads of two widths": (
        lambda: Language(Block(HeadsOfTwoWidths(), RMS)),
        tokens,
        ["orthogonal", "linear", "linear", "linear", "linear"],
    ),
    "packed rotary with grouped queries": (
        lambda: Language(Block(Packed(heads=4), RMS)),
        tokens,
        ["orthogonal", "linear", "rotary"],
    ),
    "packed rotary with one key head": (
        lambda: Language(Block(Packed(heads=4, keys=1), RMS)),
        tokens,
        ["orthogonal", "linear", "rotary"],
    ),
    "rotary in half of each head": (
        lambda: Language(Block(Attention(rotary=True, turning=2), RMS)),
        tokens,
        ["orthogonal", "linear", "linear", "rotary"],
    ),
    "rotary in half of each head with grouped queries": (
        lambda: Language(Block(Attention(keys=2, heads=4, rotary=True, turning=2), RMS)),
        tokens,
        ["orthogonal", "linear", "linear", "rotary"],
    ),
    "rotary with norms of queries and keys": (
        lambda: Language(Block(Attention(normed=True, rotary=True), RMS)),
        tokens,
        ["orthogonal", "linear", "rotary"],
    ),
    "positions that heads share": (SharedPositions, rows(2, 5, 5), ["linear"]),
    "post-norm": (lambda: Language(PostNorm(), norm=LN), tokens, ["orthogonal ones", "linear", "linear"]),
    "batch norm apart": (lambda: InvertedResidual(folded=False), rows(2, 3, 5, 5), []),
    "batch norm folded": (lambda: InvertedResidual(folded=True), rows(2, 3, 5, 5), ["linear"]),
    "mixer": (Mixer, rows(2, 5, 3), []),
    "ResNet": (lambda: ResNet([1], [6], classes=4), rows(2, 3, 8, 8), []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_group_is_that_of_theory(name: str) -> None:
    torch.manual_seed(0)
    build, draw, expected = CASES[name]
    model = build()
    continuous = found_in(model, draw(model))
    kinds = [one.kind + (" ones" if one.fixes_ones else "") for one in continuous.symmetries]
    assert sorted(kinds) == sorted(expected), str(continuous)


@pytest.mark.parametrize("name", ["rotary in half of each head", "rotary with norms of queries and keys"])
def test_rotary_maps_move_what_turns_and_stretch_where_nothing_sees_it(name: str) -> None:
    torch.manual_seed(0)
    build, draw, _ = CASES[name]
    model = build()
    (rotary,) = (one for one in found_in(model, draw(model)).symmetries if one.kind == "rotary")
    halved = "half" in name
    assert rotary.pairs == (((0, 1),) if halved else ((0, 2), (1, 3)))
    assert [sign for _, sign in rotary.exponents] == ([1, -1] if halved else [1, 1])
    assert rotary.stretches == halved
    heads = [[0, 1], [4, 5]] if halved else [[0, 1, 2, 3], [4, 5, 6, 7]]
    for slot, _ in rotary.exponents:
        assert slot.layout.table()[..., 0].tolist() == heads
