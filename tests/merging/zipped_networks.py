"""Networks whose best merges are known."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry


class Residual(nn.Module):
    """A stream of channels with a block around it, batch norms, and a linear head."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.inner_norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.outer, self.outer_norm = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, outputs)

    def forward(self, images: Tensor) -> Tensor:
        stream = torch.relu(self.norm(self.stem(images)))
        inner = torch.relu(self.inner_norm(self.inner(stream)))
        stream = torch.relu(stream + self.outer_norm(self.outer(inner)))
        scores: Tensor = self.head(stream.mean((2, 3)))
        return scores


def mlp(outputs: int = 3, norm: bool = False) -> nn.Sequential:
    """Return two hidden layers, with a layer norm between if wished."""
    between = [nn.LayerNorm(8)] if norm else []
    return nn.Sequential(
        nn.Linear(5, 8), *between, nn.GELU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, outputs)
    )


def residual(seed: int, outputs: int = 3) -> Residual:
    """Return a network of random weights and statistics, in double precision."""
    torch.manual_seed(seed)
    network = Residual(outputs)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.double().eval()


def images(count: int = 40) -> Tensor:
    """Return random images in double precision."""
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(9)).double()


def permuted_copy(network: nn.Module, spec: PermutationSpec, seed: int = 3) -> nn.Module:
    """Return the same function with its units in another order."""
    orders = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    twin = copy.deepcopy(network)
    twin.load_state_dict(permute_state(network.state_dict(), spec, orders))
    return twin


def spec_of(network: nn.Module, inputs: Tensor) -> PermutationSpec:
    """Return a network's symmetries."""
    return discover_symmetry(network, inputs[:2])
