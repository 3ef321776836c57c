"""Corrections that became part of a layer against corrections of its output, and which layers take part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune

from sinkhorn_rebasin import discover_symmetry
from sinkhorn_rebasin.activations.affine_layers import AffineLayer, affine_layers, fixed_layers
from sinkhorn_rebasin.networks.frozen import frozen_copy
from tests.activations.test_sites import Attention, Conv1D
from tests.zoo.case import Function

LAYERS = [
    (nn.Linear(6, 4), (3, 6)),
    (nn.Linear(6, 4), (3, 2, 6)),
    (nn.Linear(6, 4, bias=False), (3, 6)),
    (nn.Conv1d(6, 4, 3), (2, 6, 5)),
    (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    (nn.Conv2d(6, 4, 3), (6, 5, 5)),
    (nn.Conv3d(6, 4, 2), (2, 6, 3, 3, 3)),
    (nn.ConvTranspose1d(6, 4, 3), (2, 6, 5)),
    (nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2), (2, 6, 5, 5)),
    (Conv1D(4, 6), (3, 2, 6)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_the_layer_gives_the_corrected_output(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x = layer.double(), torch.randn(shape, dtype=torch.float64)
    scale, shift = torch.rand(4, dtype=torch.float64) + 0.5, torch.randn(4, dtype=torch.float64)
    groups = layer.groups if isinstance(layer, nn.modules.conv._ConvTransposeNd) else None
    groups = 1 if isinstance(layer, Conv1D) else groups
    affine = AffineLayer("", tuple(range(4)), 4, layer.bias is not None, groups)
    found = functional_call(layer, affine.transformed(layer.state_dict(), scale, shift), (x,))
    along = (-1, *[1] * (layer.weight.ndim - 2))
    expected = layer(x) * scale.reshape(along)
    if layer.bias is not None:
        expected = expected + shift.reshape(along)
    torch.testing.assert_close(found, expected)


def test_types_stay() -> None:
    layer = nn.Linear(3, 2).bfloat16()
    affine = AffineLayer("", (0, 1), 2, True)
    new = affine.transformed(layer.state_dict(), torch.ones(2).double(), torch.zeros(2).double())
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    torch.testing.assert_close(new, dict(layer.state_dict()), rtol=0, atol=0)


def network() -> Function:
    def run(net: Function, x: Tensor) -> Tensor:
        hidden = net.plain(x).relu()
        for layer in (net.normed, net.pruned, net.first, net.second):
            hidden = layer(hidden).relu()
        return net.last(hidden)

    square = [nn.Linear(6, 6) for _ in range(4)]
    square[3].weight = square[2].weight
    normed, pruned = parametrizations.weight_norm(square[0]), prune.identity(square[1], "weight")
    layers = {"normed": normed, "pruned": pruned, "first": square[2], "second": square[3]}
    return Function(run, plain=nn.Linear(5, 6), **layers, last=nn.Linear(6, 3))


def test_computed_shared_and_visible_ones_are_left_out() -> None:
    net = network()
    spec = discover_symmetry(net, torch.randn(2, 5))
    assert len(spec.groups) > 0
    assert [layer.name for layer in affine_layers(net, spec).values()] == ["plain"]


def test_frozen_networks_have_the_same_layers() -> None:
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
    spec = discover_symmetry(net, torch.randn(2, 5))
    found, expected = (list(affine_layers(made, spec).values()) for made in (frozen_copy(net), net))
    assert found == expected
    assert [(layer.name, layer.units, layer.has_bias) for layer in found] == [
        ("0", tuple(range(6)), True),
        ("2", tuple(range(4)), False),
    ]


def test_linear_layers_with_their_weight_the_other_way_round_are_among_them() -> None:
    net = Attention()
    spec = discover_symmetry(net, torch.randn(4, 5, 3))
    found, frozen = (list(affine_layers(made, spec).values()) for made in (net, frozen_copy(net)))
    assert found == frozen
    assert [(layer.name, layer.outputs, layer.convolution_groups) for layer in found] == [
        ("into", 6, 1),
        ("qkv", 18, 1),
    ]


def test_a_hook_of_the_network_is_not_called() -> None:
    net, seen = Attention(), []
    spec = discover_symmetry(net, torch.randn(4, 5, 3))
    net.into.register_forward_hook(lambda *_: seen.append(1))
    affine_layers(net, spec)
    assert seen == []


def test_a_tied_layer_with_its_weight_the_other_way_round_is_told() -> None:
    def run(net: Function, x: Tensor) -> Tensor:
        return net.last(net.second(net.first(net.into(x)).relu()).relu())

    first, second = Conv1D(6, 6), Conv1D(6, 6)
    second.weight = first.weight
    net = Function(run, into=Conv1D(6, 5), first=first, second=second, last=nn.Linear(6, 3))
    spec = discover_symmetry(net, torch.randn(2, 5))
    assert [layer.name for layer in affine_layers(net, spec).values()] == ["into"]
    told = "it shares its weight with another layer"
    assert fixed_layers(net, spec) == {"first": told, "second": told}
