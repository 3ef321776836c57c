"""Running at a foreign state: right outputs, right gradients, nothing changed."""

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.architecture import tied_names
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at


class Tied(nn.Module):
    """Two layers of one weight; takes positional and keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + shift


@pytest.fixture
def norm_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))


def snapshot(module: nn.Module) -> dict:
    return {name: (tensor.clone(), tensor._version) for name, tensor in module.state_dict().items()}


def test_positional_and_keyword_inputs() -> None:
    net, x, shift = Tied(), torch.randn(2, 3), torch.randn(2, 3)
    expected = net(x, shift)
    assert torch.equal(run_at(net, net.state_dict(), (x, shift)), expected)
    assert torch.equal(run_at(net, net.state_dict(), [x, shift]), expected)
    assert torch.equal(run_at(net, net.state_dict(), {"shift": shift, "x": x}), expected)


@pytest.mark.parametrize("names", [["first.weight"], ["second.weight"], ["first.weight", "second.weight"]])
def test_tied_weights_named_once_or_twice(names: list[str]) -> None:
    net, x = Tied(), torch.randn(2, 3)
    weight = torch.randn(3, 3, requires_grad=True)
    output = run_at(net, {name: weight + 0.0 * i for i, name in enumerate(names)}, (x, torch.zeros(1)))
    torch.testing.assert_close(output, x @ weight.T @ weight.T)
    (gradient,) = torch.autograd.grad(output.sum(), weight)
    (expected,) = torch.autograd.grad((x @ weight.T @ weight.T).sum(), weight)
    torch.testing.assert_close(gradient, expected)
    assert tied_names(net) == [["first.weight", "second.weight"]]


@pytest.mark.parametrize("both", [True, False])
def test_a_layer_in_two_places_keeps_its_weights(both: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    net = nn.Sequential(layer, nn.Tanh(), layer)
    own, before = dict(net.named_parameters()), copy.deepcopy(net.state_dict())
    weights = {name: torch.randn_like(tensor, requires_grad=True) for name, tensor in own.items()}
    weight, bias = weights.values()
    given = weights | {f"2.{name[2:]}": tensor for name, tensor in weights.items()} if both else weights
    for _ in range(2):
        output = run_at(net, given, x)
        expected = (x @ weight.T + bias).tanh() @ weight.T + bias
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(
            torch.autograd.grad(output.sum(), weight), torch.autograd.grad(expected.sum(), weight)
        )
        assert all(tensor is own[name] for name, tensor in net.named_parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_differentiable_state_with_running_statistics(norm_net: nn.Sequential, training: bool) -> None:
    norm_net.train(training)
    scale = torch.tensor(1.5, requires_grad=True)
    state = {
        name: value * scale if value.is_floating_point() else value
        for name, value in norm_net.state_dict().items()
    }
    versions = {name: value._version for name, value in state.items()}
    run_at(norm_net, state, torch.randn(6, 4)).sum().backward()
    assert scale.grad is not None
    assert {name: value._version for name, value in state.items()} == versions


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(norm_net: nn.Sequential, training: bool) -> None:
    norm_net.train(training)
    before = snapshot(norm_net)
    state = copy.deepcopy(norm_net.state_dict())
    given = copy.deepcopy(state)
    run_at(norm_net, state, torch.randn(6, 4))
    for name, (value, version) in snapshot(norm_net).items():
        assert torch.equal(value, before[name][0])
        assert version == before[name][1]
        assert torch.equal(state[name], given[name])
    assert all(child.training == training for child in norm_net.modules())


@pytest.mark.parametrize("kept", [["0.weight"], ["2.weight"], ["0.weight", "2.weight"], []])
def test_an_embedding_that_renormalises_its_weight_writes_to_a_copy(kept: list[str]) -> None:
    net = nn.Sequential(nn.Embedding(5, 3, max_norm=1.0), nn.Tanh(), nn.Linear(3, 5, bias=False))
    net[2].weight = net[0].weight
    words = torch.tensor([0, 3])
    before = net[0].weight.detach().clone()
    assert (before.norm(dim=1) > 1).any()
    state = {name: before.clone().requires_grad_() for name in kept}
    outputs = run_at(net, state, words)
    outputs.sum().backward()
    assert torch.equal(net[0].weight, before)
    assert all(torch.equal(tensor, before) for tensor in state.values())
    assert (state[kept[0]] if kept else net[0].weight).grad is not None
    assert torch.equal(outputs, copy.deepcopy(net)(words))


def test_evaluation_copy_shares_parameters_but_neither_buffers_nor_modes(norm_net: nn.Sequential) -> None:
    norm_net.train()
    twin = evaluation_copy(norm_net)
    assert not any(child.training for child in twin.modules())
    assert all(child.training for child in norm_net.modules())
    for mine, theirs in zip(twin.parameters(), norm_net.parameters(), strict=True):
        assert mine is not theirs
        assert mine.data_ptr() == theirs.data_ptr()
    for mine, theirs in zip(twin.buffers(), norm_net.buffers(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs
    assert not {id(child) for child in twin.modules()} & {id(child) for child in norm_net.modules()}


def test_evaluation_copy_of_a_network_that_computed_its_weight() -> None:
    with pytest.warns(FutureWarning):
        net = nn.utils.weight_norm(nn.Linear(3, 2))
    net(torch.randn(1, 3))  # leaves a tensor with a history on the module, which deepcopy refuses
    doubled = {name: value * 2 for name, value in net.state_dict().items()}
    x = torch.randn(4, 3)
    output = run_at(evaluation_copy(net), doubled, x)
    weight = nn.functional.normalize(net.weight_v, dim=1) * 2 * net.weight_g
    torch.testing.assert_close(output, x @ weight.T + 2 * net.bias)


def test_group_norm_with_channels_last_below_weights_that_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    images = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    gradients = []
    for inputs in (images, images.double().contiguous()):
        wide = {name: tensor.detach().to(inputs.dtype) for name, tensor in state.items()}
        wide["1.weight"].requires_grad_()
        run_at(net.to(inputs.dtype), wide, inputs).square().sum().backward()
        gradients.append(wide["1.weight"].grad)
        assert not inputs.requires_grad
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-4, atol=1e-5)


def test_batch_norm_on_a_batch_of_one_is_refused_with_what_to_do() -> None:
    network, told = (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(),
        r"two values .* drop the last one",
    )
    with pytest.raises(DataError, match=told), batch_statistics(network, True):
        run_at(network, {}, torch.ones(1, 3))
    assert not network[1].training


def test_of_tied_names_with_a_tensor_each_the_first_counts() -> None:
    first, second, x = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), torch.randn(2, 3)
    second.weight = first.weight
    one, other = torch.randn(3, 3), torch.randn(3, 3)
    for weights in ({"0.weight": one, "1.weight": other}, {"1.weight": one, "0.weight": other}):
        output = run_at(nn.Sequential(first, second), weights, x)
        torch.testing.assert_close(output, x @ weights["0.weight"].T @ weights["0.weight"].T)
