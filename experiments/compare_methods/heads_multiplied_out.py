"""A peer that merges a larger network: queries times keys and values times outputs are one matrix a head.

Nothing is left to choose inside of heads then. Their order and the residual stream are matched. A head of d
dimensions in a stream of n has 2 n² weights instead of 4 n d.

Source: Alexander Theus and others, "Generalized Linear Mode Connectivity for Transformers" (2025).
"""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Setting
from experiments.models.transformer import Attention
from sinkhorn_rebasin import canonicalize, discover_continuous, discover_symmetry, weight_matching


class MultipliedAttention(nn.Module):
    r"""Self-attention by one bilinear form and one map a head: (N, T, width) -> the same.

    .. math:: A_h = W_{q,h}^\top W_{k,h} / \sqrt d, \qquad c_h = W_{k,h}^\top b_{q,h} / \sqrt d, \qquad
        B_h = W_{o,h} W_{v,h}

    Biases of keys cancel, those of values become part of the last bias, as weights of attention add up to one.

    >>> attention, tokens = Attention(8, 2), torch.randn(3, 5, 8)
    >>> torch.allclose(MultipliedAttention(attention)(tokens), attention(tokens), atol=1e-5)
    True
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads, self.causal = attention.heads, attention.causal
        width = attention.out.out_features
        with torch.no_grad():
            queries, keys, values = attention.qkv.weight.view(3, heads, width // heads, width)
            biases = attention.qkv.bias.view(3, heads, width // heads)
            outputs = attention.out.weight.view(width, heads, width // heads)
            scale = math.sqrt(width // heads)
            self.scores = nn.Parameter(torch.einsum("hdi,hdj->hij", queries, keys) / scale)
            self.seen = nn.Parameter(torch.einsum("hd,hdj->hj", biases[0], keys) / scale)
            self.maps = nn.Parameter(torch.einsum("ohd,hdi->hoi", outputs, values))
            self.bias = nn.Parameter(attention.out.bias + attention.out.weight @ biases[2].flatten())

    def forward(self, tokens: Tensor) -> Tensor:
        queries = torch.einsum("nti,hij->nhtj", tokens, self.scores) + self.seen[:, None]
        inputs = tokens[:, None].expand_as(queries)
        read = F.scaled_dot_product_attention(queries, inputs, inputs, is_causal=self.causal, scale=1.0)
        return torch.einsum("nhti,hoi->nto", read, self.maps) + self.bias


def multiplied_out(network: nn.Module) -> nn.Module:
    """A copy of the network whose attention is multiplied out; it computes the same."""
    network = copy.deepcopy(network)
    for block in list(network.modules()):
        for name, layer in block.named_children():
            if isinstance(layer, Attention):
                setattr(block, name, MultipliedAttention(layer))
    return network


def weights(pair: Pair, setting: Setting) -> Outcome:
    """Weight matching of the multiplied-out networks, whose streams are turned: no data."""
    inputs = pair.data.train_images[:2]
    started = time.perf_counter()
    larger = [multiplied_out(network) for network in (pair.reference, pair.target)]
    spec = discover_symmetry(larger[0], inputs)
    continuous = discover_continuous(larger[1], spec, inputs)
    networks = [canonicalize(network, spec, continuous, inputs) for network in larger]
    alignment = weight_matching(*networks, spec, symmetry=continuous or None, generator=pair.generator())
    rebased = alignment.apply(networks[1])
    seconds = time.perf_counter() - started
    counts = [
        sum(weight.numel() for weight in network.parameters()) for network in (pair.reference, networks[0])
    ]
    notes = {"told": [f"{counts[1] / counts[0]:.2f} times the weights"]}
    reference = networks[0].state_dict()
    return Outcome(rebased, seconds, notes=notes, reference=reference, network=networks[0], spec=spec)
