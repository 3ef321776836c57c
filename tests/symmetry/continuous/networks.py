"""Transformers with gains and shifts of every sign, and their continuous symmetries written by hand."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from experiments.models.transformer import GPT, ViT
from sinkhorn_rebasin.permutations import Layout, PermutationSpec, RescalingSpec, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry

WIDTH, HEADS = 8, 2


def vit(seed: int = 0) -> nn.Module:
    """A vision transformer of one block in double precision, none of its parameters at a special value."""
    torch.manual_seed(seed)
    model = ViT(size=8, patch=4, width=WIDTH, depth=1, heads=HEADS, hidden=6).double()
    return spread(model)


def vit_with_unit_gains() -> nn.Module:
    """The same with the gains of its norms at one, where its streams can be turned."""
    model = vit()
    for gain in symmetries_of_vit()[1]["positions"].gains:
        nn.init.ones_(model.get_parameter(gain))
    return model


def gpt() -> nn.Module:
    """A language model whose last layer is its embedding."""
    torch.manual_seed(0)
    return spread(GPT(vocabulary=7, context=5, width=WIDTH, depth=1, heads=HEADS, hidden=6).double())


def spread(model: nn.Module) -> nn.Module:
    """Gains of both signs and shifts far from zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * (1.0 if "bias" in name else 0.5))
                if "norm" in name and name.endswith("weight"):
                    parameter[0].neg_()
    return model


def images(count: int = 3) -> Tensor:
    """Inputs of the vision transformer."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@cache
def symmetries_of_vit() -> tuple[PermutationSpec, ContinuousSpec, RescalingSpec]:
    """Permutations and scales as discovered; the continuous ones as theory has them."""
    model, inputs = vit(), images()
    spec = discover_symmetry(model, inputs)
    return spec, by_hand(spec, "positions"), discover_rescaling(model, spec, inputs, signs=False)


def by_hand(spec: PermutationSpec, stream: str) -> ContinuousSpec:
    """The orthogonal stream of pre-norm transformers and the linear maps inside their heads."""
    gains = tuple(name for name in spec.shapes if "norm" in name and name.endswith("weight"))
    slots = tuple(slot for slot in spec.slots_of(stream) if slot.tensor not in gains)
    # What reads a norm sees the mean of its shift, and so does a head that is the embedding.
    seen = ("qkv.weight", "up.weight", "head.weight", "words.weight", "norm.bias", "norm1.bias", "norm2.bias")
    writers = tuple(slot for slot in slots if not slot.tensor.endswith(seen))
    symmetries = [
        ContinuousSymmetry(
            spec[stream], "orthogonal", tuple((s, 1) for s in slots), True, gains, centered=writers
        )
    ]
    per_head, attention = WIDTH // HEADS, "blocks.0.attention"

    def inner(name: str, tensor: str, part: int, axis: int = 0) -> Slot:
        layout = Layout(HEADS, per_head, offset=part * WIDTH, block_stride=per_head)
        return Slot(name, f"{attention}.{tensor}", (axis,), layout)

    keys, values = "blocks/0/attention/qkv#2", "blocks/0/attention/qkv#3"
    signed = (
        (inner(keys, "qkv.weight", 0), 1),
        (inner(keys, "qkv.weight", 1), -1),
        (inner(keys, "qkv.bias", 0), 1),
    )
    symmetries.append(ContinuousSymmetry(spec[keys], "linear", signed))
    signed = (
        (inner(values, "qkv.weight", 2), 1),
        (inner(values, "qkv.bias", 2), 1),
        (inner(values, "out.weight", 0, 1), -1),
    )
    symmetries.append(ContinuousSymmetry(spec[values], "linear", signed))
    return ContinuousSpec(tuple(symmetries))
