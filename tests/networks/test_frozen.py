from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.frozen import frozen_copy, thawed_copy, traits_of


class Tied(nn.Module):
    """Two layers that share a weight, one of them frozen and in eval mode, and a buffer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4, affine=False).eval()
        self.register_buffer("scale", torch.rand(4))
        self.register_buffer("same_scale", self.scale)
        self.register_buffer("scratch", torch.rand(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.first(x).relu()) * self.scale)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


NETWORKS = {
    "tied": Tied,
    "no bias": lambda: nn.Sequential(nn.Linear(4, 3, bias=False), nn.LayerNorm(3)),
    "containers": lambda: nn.ParameterDict(
        {"a": nn.Parameter(torch.rand(2)), "b": nn.ParameterList([torch.rand(3)])}
    ),
    "recurrent": lambda: nn.LSTM(4, 3, num_layers=2, batch_first=True),
    "shared module": lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_freezing_and_thawing_gives_the_network_back(name: str) -> None:
    network = NETWORKS[name]()
    before = copy.deepcopy(network)
    frozen = frozen_copy(network)
    plain = thawed_copy(frozen, network.state_dict(), traits_of(network))
    assert not list(frozen.parameters())
    assert list(frozen.state_dict()) == list(network.state_dict())
    assert type(plain) is type(network)
    assert same_state(plain, network)
    assert same_state(network, before)
    assert traits_of(plain) == traits_of(network)
    assert len(list(plain.parameters())) == len(list(network.parameters()))
    if name != "containers":
        x = torch.randn(3, 4)
        assert all(
            torch.equal(one, other)
            for one, other in zip(as_tuple(plain(x)), as_tuple(network(x)), strict=True)
        )


def as_tuple(output: Tensor | tuple) -> tuple:
    return (output,) if isinstance(output, Tensor) else (output[0], *output[1])


@pytest.mark.parametrize("move", [nn.Module.double, copy.deepcopy], ids=["double", "deepcopy"])
def test_ties_survive_a_move_of_the_frozen_copy(move: object) -> None:
    network = Tied()
    frozen = move(frozen_copy(network))  # type: ignore[operator]
    plain = thawed_copy(frozen, frozen.state_dict(), traits_of(network))
    assert plain.first.weight is plain.second.weight
    assert plain.scale is plain.same_scale
    assert isinstance(plain.first.weight, nn.Parameter)
    assert plain.first.weight.dtype == frozen.first.weight.dtype


def test_thawed_tensors_are_their_own() -> None:
    network = Tied()
    frozen = frozen_copy(network)
    state = network.state_dict()
    plain = thawed_copy(frozen, state, traits_of(network))
    kept = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for tensor in [*plain.parameters(), *plain.buffers()]:
            tensor.add_(1)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in frozen.state_dict().items())


def test_flags_and_modes_of_every_part_come_back() -> None:
    plain = thawed_copy(frozen_copy(Tied()).train(), {}, traits_of(Tied()))
    assert plain.training
    assert plain.first.training
    assert not plain.norm.training
    flags = {name: parameter.requires_grad for name, parameter in plain.named_parameters()}
    assert flags == {"first.weight": True, "first.bias": True, "second.bias": False}


def test_thawed_parameters_are_trained() -> None:
    plain = thawed_copy(frozen_copy(nn.LSTM(4, 3)), {}, traits_of(nn.LSTM(4, 3)))
    plain(torch.randn(2, 5, 4))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in plain.parameters())


def test_state_not_given_is_taken_from_the_frozen_copy() -> None:
    network = nn.Linear(2, 2)
    plain = thawed_copy(frozen_copy(network), {"bias": torch.zeros(2)}, traits_of(network))
    assert torch.equal(plain.weight, network.weight)
    assert torch.equal(plain.bias, torch.zeros(2))


def test_a_frozen_copy_runs_at_other_weights_with_gradients() -> None:
    network = nn.Linear(2, 1)
    weight = torch.ones(1, 2, requires_grad=True)
    output = run_at(
        frozen_copy(network), {"weight": weight, "bias": torch.zeros(1)}, torch.tensor([3.0, 4.0])
    )
    output.backward()
    assert output.item() == 7.0
    assert weight.grad is not None
    assert weight.grad.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(3), nn.InstanceNorm1d(3, affine=True, track_running_stats=True)]
)
def test_weight_and_bias_of_frozen_norm_layers_get_gradients(layer: nn.Module, training: bool) -> None:
    frozen = frozen_copy(layer).train(training)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    for name in ("weight", "bias"):
        state[name].requires_grad_()
    before = copy.deepcopy(frozen.state_dict())
    run_at(frozen, state, torch.randn(4, 3, 5)).square().sum().backward()
    assert all(state[name].grad is not None for name in ("weight", "bias"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())
