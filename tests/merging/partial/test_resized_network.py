from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.merging.partial.resized_network import resized_network


def wider(network: nn.Module, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    named = {name.replace("__", "."): shape for name, shape in shapes.items()}
    return {
        name: torch.ones(named.get(name, tensor.shape), dtype=tensor.dtype)
        for name, tensor in network.state_dict().items()
    }


def test_layers_know_their_new_sizes() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 2, 1)
    )
    sizes = {"0__weight": (7, 3, 3, 3), "0__bias": (7,), "2__weight": (7, 1, 3, 3), "2__bias": (7,)}
    sizes |= {f"1__{name}": (7,) for name in ("weight", "bias", "running_mean", "running_var")}
    before = copy.deepcopy(net.state_dict())
    twin = resized_network(net, wider(net, **sizes, **{"3__weight": (7, 2, 1, 1)}))
    assert (twin[0].out_channels, twin[1].num_features, twin[2].groups, twin[2].in_channels) == (7, 7, 7, 7)
    assert (twin[3].in_channels, twin[3].out_channels) == (7, 2)
    assert twin(torch.ones(2, 3, 8, 8)).shape == (2, 2, 4, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net[0].out_channels == 4


def test_norms_embeddings_and_ties_go_along() -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5, bias=False))
    net[2].weight = net[0].weight
    twin = resized_network(net, wider(net, **{"0__weight": (5, 6), "1__weight": (6,), "1__bias": (6,)}))
    assert twin[2].weight is twin[0].weight
    assert (twin[0].embedding_dim, twin[1].normalized_shape, twin[2].in_features) == (6, (6,), 6)
    assert twin(torch.tensor([1, 2])).shape == (2, 5)


@pytest.mark.parametrize(
    ("network", "sizes", "said"),
    [
        (
            nn.Sequential(nn.GRU(3, 4)),
            {"0__weight_ih_l0": (15, 3)},
            "'0' is GRU, which is built for one size",
        ),
        (
            nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)),
            {"0__weight": (6, 2, 1, 1)},
            "'0' has 2 groups of several",
        ),
        (nn.Sequential(nn.GroupNorm(2, 4)), {"0__weight": (6,)}, "'0' is GroupNorm"),
    ],
)
def test_layers_of_one_size_are_refused_by_name(
    network: nn.Module, sizes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(ArchitectureError, match=said):
        resized_network(network, wider(network, **sizes))
