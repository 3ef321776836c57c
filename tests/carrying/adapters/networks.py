"""Small bases of several kinds of layers, adapters for them, and bases in another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.networks.copying import standalone_copy
from tests.carrying.networks import at


class Conv1D(nn.Module):
    """A linear layer with its inputs along the first axis, as GPT-2 has them."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(0.5 * torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Mixed(nn.Module):
    """An embedding, a convolution, a Conv1D and linear layers."""

    def __init__(self, activation: type[nn.Module], labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.first = nn.Linear(5, 7)
        self.convolution = nn.Conv1d(7, 6, 3)
        self.turned = Conv1D(8, 6)
        self.head = nn.Linear(8, labels)
        self.activation = activation()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.activation(self.first(self.embedding(tokens)))
        x = self.activation(self.convolution(x.mT)).mean(-1)
        return self.head(self.activation(self.turned(x)))


TOKENS = torch.arange(24).reshape(4, 6) % 11


def mixed(seed: int, activation: type[nn.Module] = nn.ReLU, labels: int = 3) -> Mixed:
    """The network of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mixed(activation, labels).eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(rank: int = 2, *, dora: bool = False, **config: Any) -> sr.Adapter:
    """An adapter for every layer but the head, whose bias it saves whole."""
    shapes = {
        "embedding.lora_embedding_A": (rank, 11),
        "embedding.lora_embedding_B": (5, rank),
        "first.lora_A.weight": (rank, 5),
        "first.lora_B.weight": (7, rank),
        "convolution.lora_A.weight": (rank, 7, 3),
        "convolution.lora_B.weight": (6, rank, 1),
        "turned.lora_A.weight": (rank, 6),
        "turned.lora_B.weight": (8, rank),
        "turned.lora_B.bias": (8,),
        "first.base_layer.bias": (7,),
        "head.bias": (3,),
        "head.weight": (3, 8),
    }
    if dora:
        del shapes["turned.lora_B.bias"]
        shapes |= {
            "embedding.lora_magnitude_vector": (5,),
            "first.lora_magnitude_vector": (7,),
            "convolution.lora_magnitude_vector": (1, 6, 1),
            "turned.lora_magnitude_vector": (8,),
        }
    tensors = {key: normal(*shape, seed=seed) for seed, (key, shape) in enumerate(shapes.items())}
    tensors = {key: t.abs() + 0.5 if "magnitude" in key else t for key, t in tensors.items()}
    named = {"peft_type": "LORA", "r": rank, "lora_alpha": 3, "modules_to_save": ["head"], "use_dora": dora}
    return sr.Adapter({**named, **config}, tensors)


def moved_base(base: nn.Module, alignment: sr.Alignment) -> nn.Module:
    """The base in the coordinates that an alignment leads to."""
    return at(standalone_copy(base), alignment.apply(base))
