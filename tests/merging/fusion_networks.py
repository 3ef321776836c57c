"""Networks to fuse, aligned by what is known of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sinkhorn_rebasin as sr


class Grouped(nn.Module):
    """Plain, strided, grouped and depthwise convolutions, batch norm, and a linear layer on flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, stride=2, groups=8)
        self.grouped = nn.Conv2d(8, 12, 2, dilation=2, groups=4)
        self.last = nn.Linear(12, 3)
        self.flat = nn.Linear(12 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(x)))
        hidden = torch.relu(self.grouped(torch.relu(self.depth(hidden))))
        return self.flat(hidden.flatten(1)) + self.last(hidden.mean((2, 3)))


def mlp(seed: int, bias: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Linear(3, 6, bias), nn.ReLU(), nn.Linear(6, 5, bias), nn.ReLU(), nn.Linear(5, 2, bias)
    if bias:
        for layer in (layers[0], layers[2]):
            nn.init.uniform_(layer.bias, 0.5, 1)  # no unit is dead
    return nn.Sequential(*layers).double().eval()


def convolutional(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = Grouped().double().eval()
    with torch.no_grad():
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
        for layer in (net.depth, net.grouped):
            layer.bias.uniform_(0.5, 1)  # no unit is dead
    return net


def images(count: int = 20, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 10, 10, generator=generator, dtype=torch.float64)


def points(count: int = 40, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) @ torch.randn(
        3, 3, generator=generator, dtype=torch.float64
    )


def moving(network: nn.Module, inputs: Tensor, scaled: bool = False, seed: int = 7) -> sr.Alignment:
    """A random alignment of a network's own symmetries: permutations, and scales and signs if asked for."""
    spec = sr.discover_symmetry(network, inputs)
    generator = torch.Generator().manual_seed(seed)
    found = sr.Alignment(sr.random_permutations(spec, generator=generator), spec)
    if not scaled:
        return found
    rescaling = sr.discover_rescaling(network, spec, inputs)

    def drawn(kind: str) -> dict[str, Tensor]:
        shapes = rescaling.shapes(spec, kind)
        return {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}

    signs = {name: value.sign() for name, value in drawn("sign").items()}
    return sr.Alignment(
        found.permutations, spec, rescaling=rescaling, log_scales=drawn("positive"), signs=signs
    )


def identity(spec: sr.PermutationSpec) -> sr.Alignment:
    return sr.Alignment(sr.identity_permutations(spec), spec)


def with_state(network: nn.Module, state: dict[str, Tensor], seed: int = 0) -> nn.Module:
    """Another network of the same architecture with these tensors."""
    twin = type(network)() if isinstance(network, Grouped) else mlp(seed, network[0].bias is not None)
    twin = twin.double().eval()
    twin.load_state_dict(state)
    return twin
