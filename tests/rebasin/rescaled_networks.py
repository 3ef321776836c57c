"""Networks with the rescalings that a human would write down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry


class Attention(nn.Module):
    """One head with separate projections, read by a linear layer after ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 5)
        self.o, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).mT / math.sqrt(3)).softmax(-1)
        return self.head(self.o(weights @ self.v(x)).relu())


class PackedAttention(nn.Module):
    """Multi-head attention with queries, keys and values in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].tanh())


class Tied(nn.Module):
    """One weight in two layers, whose units are those of the layers before and after."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.third.weight = self.second.weight
        self.last, self.activation = nn.Linear(5, 2), activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            x = self.activation(layer(x))
        return self.last(x)


class SharedEmbedding(nn.Module):
    """A table read twice: words in, and the same rows as keys out; the hidden units pass through ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.other, self.out = nn.Embedding(7, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.twin = nn.Linear(5, 4)
        self.twin.weight = self.other.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        return self.out(self.other(x).relu() + self.twin(x).relu())


class TwoOutputs(nn.Module):
    """Two heads of very different size on one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x).relu()
        return self.left(hidden), 1e6 * self.right(hidden)


def mlp(activation: nn.Module) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(3, 6), activation, nn.Linear(6, 5), activation, nn.Linear(5, 2))


def convolution(*inner: nn.Module) -> nn.Module:
    """Convolution, something on its channels, and a linear layer on all pixels."""
    return nn.Sequential(nn.Conv2d(2, 4, 3), *inner, nn.Flatten(), nn.Linear(4 * 9, 2))


Exponents = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class Rescaled:
    """A network, its inputs, and its generators as sets of (tensor, first axis, exponent)."""

    make: Callable[[], nn.Module]
    make_inputs: Callable[[], Tensor]
    positive: frozenset[Exponents] = frozenset()
    sign: frozenset[Exponents] = frozenset()


def written(*texts: str) -> frozenset[Exponents]:
    """Generators from texts like ``"0.weight 0 +1, 2.weight 1 -1"``."""
    parts = [[one.split() for one in text.split(",")] for text in texts]
    return frozenset(frozenset((name, int(axis), int(e)) for name, axis, e in text) for text in parts)


FIRST, SECOND = "0.weight 0 {0}, 0.bias 0 {0}, 2.weight 1 {1}", "2.weight 0 {0}, 2.bias 0 {0}, 4.weight 1 {1}"
SCALED = written(FIRST.format(1, -1), SECOND.format(1, -1))
FLIPPED = written(FIRST.format(1, 1), SECOND.format(1, 1))


def noise(*shape: int) -> Callable[[], Tensor]:
    """A maker of normal inputs."""
    return lambda: torch.randn(*shape)


NETWORKS: dict[str, Rescaled] = {
    "relu": Rescaled(lambda: mlp(nn.ReLU()), noise(8, 3), SCALED),
    "leaky_relu": Rescaled(lambda: mlp(nn.LeakyReLU(0.2)), noise(8, 3), SCALED),
    "linear": Rescaled(lambda: mlp(nn.Identity()), noise(8, 3), SCALED, FLIPPED),
    "tanh": Rescaled(lambda: mlp(nn.Tanh()), noise(8, 3), sign=FLIPPED),
    "gelu": Rescaled(lambda: mlp(nn.GELU()), noise(8, 3)),
    "sigmoid": Rescaled(lambda: mlp(nn.Sigmoid()), noise(8, 3)),
    "convolution": Rescaled(
        lambda: convolution(nn.ReLU()), noise(2, 2, 5, 5), written("0.weight 0 1, 0.bias 0 1, 3.weight 1 -1")
    ),
    "batch_norm": Rescaled(
        lambda: convolution(nn.BatchNorm2d(4), nn.ReLU()),
        noise(2, 2, 5, 5),
        written("1.weight 0 1, 1.bias 0 1, 4.weight 1 -1"),
    ),
    "layer_norm": Rescaled(
        lambda: nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)),
        noise(8, 3),
        written("1.weight 0 1, 1.bias 0 1, 3.weight 1 -1"),
    ),
    "attention": Rescaled(
        Attention,
        noise(2, 5, 4),
        written(
            "q.weight 0 1, q.bias 0 1, k.weight 0 -1",
            "v.weight 0 1, v.bias 0 1, o.weight 1 -1",
            "o.weight 0 1, o.bias 0 1, head.weight 1 -1",
        ),
        written("q.weight 0 1, q.bias 0 1, k.weight 0 1", "v.weight 0 1, v.bias 0 1, o.weight 1 1"),
    ),
    "packed_attention": Rescaled(
        PackedAttention,
        noise(2, 5, 8),
        written(
            "attention.in_proj_weight 0 1, attention.in_proj_bias 0 1, attention.in_proj_weight 0 -1",
            "attention.in_proj_weight 0 1, attention.in_proj_bias 0 1, attention.out_proj.weight 1 -1",
        ),
        written(
            "attention.in_proj_weight 0 1, attention.in_proj_bias 0 1",
            "attention.in_proj_weight 0 1, attention.in_proj_bias 0 1, attention.out_proj.weight 1 1",
            "attention.out_proj.weight 0 1, attention.out_proj.bias 0 1, head.weight 1 1",
        ),
    ),
    "tied_tanh": Rescaled(
        lambda: Tied(torch.tanh),
        noise(4, 3),
        sign=written(
            "first.weight 0 1, first.bias 0 1, second.weight 0 1, second.bias 0 1, second.weight 1 1, "
            "third.bias 0 1, last.weight 1 1"
        ),
    ),
    "tied_relu": Rescaled(
        lambda: Tied(torch.relu),
        noise(4, 3),
        written(
            "first.weight 0 1, first.bias 0 1, second.weight 0 1, second.bias 0 1, second.weight 1 -1, "
            "third.bias 0 1, last.weight 1 -1"
        ),
    ),
    "tied_in_parallel": Rescaled(
        SharedEmbedding,
        lambda: torch.randint(7, (4, 3)),
        written(
            "embed.weight 1 1, other.weight 1 -1",
            "other.weight 0 1, other.bias 0 1, twin.bias 0 1, out.weight 1 -1",
        ),
        written("embed.weight 1 1, other.weight 1 1"),
    ),
    "two_outputs": Rescaled(
        TwoOutputs,
        noise(8, 3),
        written("body.weight 0 1, body.bias 0 1, left.weight 1 -1, right.weight 1 -1"),
    ),
}


def built(
    name: str, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, Tensor, PermutationSpec, RescalingSpec]:
    """A network with random weights and statistics, its inputs, and what is found in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = NETWORKS[name].make().eval(), NETWORKS[name].make_inputs()
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.data.uniform_(0.2, 1.2)
    return model.to(dtype), inputs.to(dtype) if inputs.is_floating_point() else inputs, *_found(name)


@cache
def _found(name: str) -> tuple[PermutationSpec, RescalingSpec]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model, inputs = NETWORKS[name].make(), NETWORKS[name].make_inputs()
    spec = discover_symmetry(model, inputs)
    return spec, discover_rescaling(model, spec, inputs)


def factors(
    spec: PermutationSpec, rescaling: RescalingSpec, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random log-scales and signs of all generators."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    logs = {name: 0.7 * draw(shape) for name, shape in rescaling.shapes(spec, "positive").items()}
    return logs, {name: draw(shape).sign() for name, shape in rescaling.shapes(spec, "sign").items()}
