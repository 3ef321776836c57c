"""Small networks in wider ones: the function is kept, and the weights are where they belong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.models.transformer import ViT
from sinkhorn_rebasin.errors import ArchitectureError, SymmetryError
from sinkhorn_rebasin.matching.across_widths.widening import widen_into
from sinkhorn_rebasin.permutations import ContinuousSpec, ContinuousSymmetry, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.symmetry import discover_symmetry
from sinkhorn_rebasin.symmetry.continuous.canonical import canonicalize
from tests.matching.networks_of_any_width import double_network
from tests.symmetry.continuous.networks import images, spread, symmetries_of_vit, vit
from tests.symmetry.witness import outputs_of


def apart(one: nn.Module, other: nn.Module, inputs: Any) -> float:
    pairs = zip(outputs_of(one, inputs), outputs_of(other, inputs), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("name", ["mlp", "conv", "lstm", "transposed", "concatenated"])
def test_new_units_are_not_heard(name: str) -> None:
    small, inputs, spec = double_network(name, 4)
    large, _, spec_large = double_network(name, 6, seed=1)
    before = {key: tensor.clone() for key, tensor in large.state_dict().items()}
    wide = widen_into(small, large, spec, spec_large, inputs)
    assert type(wide) is type(large)
    assert apart(small, wide, inputs) < 1e-12
    assert all(wide.state_dict()[key].shape == tensor.shape for key, tensor in before.items())
    assert all(torch.equal(large.state_dict()[key], tensor) for key, tensor in before.items())


class Llama(nn.Module):
    """A stream under RMS norms with gains, attention of several heads and a gated hidden layer."""

    def __init__(self, width: int, heads: int, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.words = nn.Embedding(11, width)
        self.norm1, self.norm2, self.norm = (nn.RMSNorm(width, eps=0.1) for _ in range(3))
        self.q, self.k, self.v = (nn.Linear(width, heads * size, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * size, width, bias=False)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down, self.head = nn.Linear(hidden, width, bias=False), nn.Linear(width, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        h = self.norm1(x)
        q, k, v = (m(h).unflatten(-1, (-1, self.size)).transpose(1, 2) for m in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.norm2(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        output: Tensor = self.head(self.norm(x))
        return output


def stream_by_hand(spec: PermutationSpec) -> ContinuousSpec:
    gains = ("norm1.weight", "norm2.weight", "norm.weight")
    stream = next(slot.group for slot in spec.slots if slot.tensor == "words.weight")
    slots = tuple((slot, 1) for slot in spec.slots_of(stream) if slot.tensor not in gains)
    nested = {s.tensor: s.group for s in spec.slots if spec[s.group].parent}
    symmetries = [ContinuousSymmetry(spec[stream], "orthogonal", slots, gains=gains)]
    if "q.weight" in nested:
        group = spec[nested["q.weight"]]
        layout = Layout(group.blocks, group.size, block_stride=group.size)
        pair = tuple((Slot(group.name, f"{n}.weight", (0,), layout), e) for n, e in (("q", 1), ("k", -1)))
        symmetries.append(ContinuousSymmetry(group, "linear", pair))
    return ContinuousSpec(tuple(symmetries))


@pytest.mark.parametrize("sizes", [(10, 3, 4, 9), (8, 2, 6, 7)])
def test_streams_under_rms_norm_keep_their_mean_square(sizes: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    small, large = spread(Llama(8, 2, 4, 6).double()), Llama(*sizes).double()
    with torch.no_grad():
        for norm in (small.norm1, small.norm2, small.norm):
            norm.weight.uniform_(0.5, 2)
    tokens = torch.randint(11, (3, 5))
    spec, spec_large = discover_symmetry(small, tokens), discover_symmetry(large, tokens)
    wide = widen_into(small, large, spec, spec_large, tokens, continuous=stream_by_hand(spec))
    assert apart(small, wide, tokens) < 1e-12
    root = (sizes[0] / 8) ** 0.5
    torch.testing.assert_close(wide.words.weight[:, :8], root * small.words.weight)
    torch.testing.assert_close(wide.head.weight[:, :8], small.head.weight / root)
    assert not bool(wide.words.weight[:, 8:].any())


def test_layer_norms_need_a_stream_without_mean() -> None:
    small = vit()
    spec, continuous, rescaling = symmetries_of_vit()
    large = ViT(size=8, patch=4, width=12, depth=1, heads=3, hidden=9).double()
    spec_large = discover_symmetry(large, images())
    known = {"continuous": continuous, "rescaling": rescaling}
    with pytest.raises(SymmetryError, match="canonicalize the network first"):
        widen_into(small, large, spec, spec_large, images(), **known)
    canonical = canonicalize(small, spec, continuous, images(), rescaling=rescaling)
    wide = widen_into(canonical, large, spec, spec_large, images(), **known)
    assert apart(small, wide, images(7)) < 1e-12


def test_fewer_units_and_other_architectures_are_refused_by_name() -> None:
    small, inputs, spec = double_network("mlp", 4)
    large, _, spec_large = double_network("mlp", 6)
    with pytest.raises(ArchitectureError, match=r"at least 1 x 6 units of group '0'.*got 1 x 4"):
        widen_into(large, small, spec_large, spec, inputs)
    other, _, spec_other = double_network("concatenated", 6)
    with pytest.raises(ArchitectureError, match="the same groups"):
        widen_into(small, other, spec, spec_other, inputs)
