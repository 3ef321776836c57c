"""Networks of several owners with a known truth: permuted copies, one of them with units more."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry


def permuted_copies(network: nn.Module, inputs: torch.Tensor, count: int) -> list[nn.Module]:
    """Return the network and copies in other orders."""
    spec, copies = discover_symmetry(network, inputs), [network]
    for seed in range(1, count):
        order = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
        twin = copy.deepcopy(network)
        twin.load_state_dict(permute_state(network.state_dict(), spec, order))
        copies.append(twin)
    return copies


def with_units_more(network: nn.Sequential, number: int, more: int) -> nn.Sequential:
    """Return a copy whose linear layer has units more, far from all others, in a random order."""
    draw = torch.Generator().manual_seed(7)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    incoming, bias = state[f"{number}.weight"], state[f"{number}.bias"]
    follows = next(n for n, layer in enumerate(network) if n > number and isinstance(layer, nn.Linear))
    outgoing = state[f"{follows}.weight"]
    new = {
        f"{number}.weight": torch.cat([incoming, 4 + torch.rand(more, incoming.shape[1], generator=draw)]),
        f"{number}.bias": torch.cat([bias, torch.rand(more, generator=draw)]),
        f"{follows}.weight": torch.cat(
            [outgoing, 0.01 * torch.randn(len(outgoing), more, generator=draw)], 1
        ),
    }
    order = torch.randperm(len(bias) + more, generator=draw)
    new = {
        name: tensor[:, order] if name.startswith(f"{follows}.") else tensor[order]
        for name, tensor in new.items()
    }
    return resized(network, {**state, **new})
