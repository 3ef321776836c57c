"""Small bases, fine-tunes of them, and copies in other coordinates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.copying import standalone_copy


def mlp(seed: int, width: int = 8, *, activation: type[nn.Module] = nn.ReLU, labels: int = 3) -> nn.Module:
    """Two hidden layers, always the same for a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = nn.Linear(4, width), activation(), nn.Linear(width, width), activation()
        return nn.Sequential(*hidden, nn.Linear(width, labels)).eval()


def convolutions(seed: int) -> nn.Module:
    """Two convolutions with batch norms and a head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (
            nn.Conv2d(2, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 5, 3),
            nn.BatchNorm2d(5),
            nn.ReLU(),
        )
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
        network(torch.randn(16, 2, 8, 8))
        return network.eval()


def tuned_from(base: nn.Module, seed: int = 7, size: float = 0.1) -> nn.Module:
    """A copy whose every parameter has been changed a little."""
    generator = torch.Generator().manual_seed(seed)
    twin = standalone_copy(base)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return twin


def at(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy with other tensors."""
    twin = standalone_copy(network)
    twin.load_state_dict(dict(state))
    return twin


def difference(first: nn.Module, second: nn.Module) -> dict[str, Tensor]:
    """One network's parameters minus another's, in double precision."""
    theirs = dict(second.named_parameters())
    return {
        name: (tensor.double() - theirs[name].double()).detach() for name, tensor in first.named_parameters()
    }


def farthest(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The largest distance of two entries."""
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)
