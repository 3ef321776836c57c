"""Curves between states: positions, gradients, copies and refusals."""

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.connectivity import BezierPath, Curve, LinearPath, SupportsPath
from sinkhorn_rebasin.errors import ArchitectureError


def conv_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    net(torch.randn(8, 1, 4, 4))  # gives the running statistics something to hold
    return net


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 1.0, torch.tensor(0.25), torch.tensor(0.7).double()])
def test_segment_is_the_weighted_mean(at: float | torch.Tensor) -> None:
    start, end = conv_net(0), conv_net(1)
    state = LinearPath.between(start, end).state_at(at)
    t = float(at)
    for name, first in start.state_dict().items():
        last = end.state_dict()[name]
        expected = (1 - t) * first.double() + t * last.double() if first.is_floating_point() else first
        torch.testing.assert_close(state[name].double(), expected.double(), rtol=1e-6, atol=1e-7)
        assert state[name].dtype == first.dtype


def test_ends_are_exact_and_independent() -> None:
    start, end = conv_net(0), conv_net(1)
    end(torch.randn(8, 1, 4, 4))
    path = LinearPath.between(start, end)
    for at, net in ((0.0, start), (1.0, end)):
        for name, value in path.state_at(at).items():
            assert torch.equal(value, net.state_dict()[name])
            value.zero_()
    assert end[1].num_batches_tracked.item() == 2
    assert start[1].num_batches_tracked.item() == 1
    assert start[0].weight.abs().sum() > 0
    assert end[0].weight.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_call_equals_the_module_there(training: bool) -> None:
    start, end = conv_net(0).train(training), conv_net(1).eval()
    path = LinearPath.between(start, end)
    x = torch.randn(6, 1, 4, 4)
    output = path(x, at=0.3)
    module = path.module_at(0.3)
    assert module.training is training
    assert type(module) is nn.Sequential
    torch.testing.assert_close(output, module(x))
    assert torch.equal(path(x), path(x, at=0.5))
    assert start.training is training
    assert start[1].num_batches_tracked.item() == 1


def test_module_at_is_a_new_module() -> None:
    start, end = conv_net(0), conv_net(1)
    start(torch.randn(2, 1, 4, 4)).sum().backward()
    module = LinearPath.between(start, end).module_at(1.0)
    assert torch.equal(module[0].weight, end[0].weight)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert all(parameter.grad is not None for parameter in start.parameters())
    with torch.no_grad():
        module[0].weight.zero_()
    assert end[0].weight.abs().sum() > 0


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = torch.randn(4, 2).double()
    names = [name for name, _ in net.named_parameters()]
    ends = [torch.randn_like(p, requires_grad=True) for _ in range(2) for p in net.parameters()]
    at = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def output(at: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        start = dict(zip(names, tensors[: len(names)], strict=True))
        end = dict(zip(names, tensors[len(names) :], strict=True))
        return LinearPath(net, start, end)(x, at=at)

    assert torch.autograd.gradcheck(output, (at, *ends))


def test_bezier_against_its_polynomial() -> None:
    nets = [conv_net(seed) for seed in range(3)]
    start, end, control = (net.state_dict() for net in nets)
    path = BezierPath(nets[0], start, end, control)
    t = 0.3
    for name, value in path.state_at(t).items():
        if value.is_floating_point():
            expected = (1 - t) ** 2 * start[name] + 2 * t * (1 - t) * control[name] + t**2 * end[name]
            torch.testing.assert_close(value, expected)
    assert torch.equal(path.state_at(0.0)["0.weight"], start["0.weight"])
    assert torch.equal(path.state_at(1.0)["0.weight"], end["0.weight"])


def test_bezier_over_the_mean_is_the_segment() -> None:
    first, last = conv_net(0), conv_net(1)
    segment = LinearPath.between(first, last)
    path = BezierPath(first, segment.start, segment.end, segment.state_at(0.5))
    for at in (0.2, 0.9):
        torch.testing.assert_close(path.state_at(at), segment.state_at(at))


def test_protocols() -> None:
    path = LinearPath.between(nn.Linear(2, 2), nn.Linear(2, 2))

    class Trained(nn.Module):
        def path(self) -> LinearPath:
            return path

    assert isinstance(path, Curve)
    assert not isinstance(path, SupportsPath)
    assert isinstance(Trained(), SupportsPath)
    assert not isinstance(nn.Linear(2, 2), Curve | SupportsPath)


def test_mixed_precision_ends_are_promoted() -> None:
    net = nn.Linear(2, 2)
    half = {name: value.bfloat16() for name, value in net.state_dict().items()}
    state = LinearPath(net, half, net.state_dict()).state_at(0.5)
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_tied_weights() -> None:
    def tied(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        net[2].weight = net[0].weight
        return net

    path = LinearPath.between(tied(0), tied(1))
    module = path.module_at(0.5)
    x = torch.randn(5, 3)
    assert module[2].weight is module[0].weight
    torch.testing.assert_close(module(x), path(x))
    once = [{k: v for k, v in state.items() if k != "2.weight"} for state in (path.start, path.end)]
    torch.testing.assert_close(LinearPath(tied(2), *once)(x), path(x))
    torch.testing.assert_close(LinearPath(tied(2), *once).module_at(0.5)(x), path(x))


def test_differing_networks_are_named() -> None:
    with pytest.raises(ArchitectureError, match=r"'0.weight'.*\(3, 2\) and \(4, 2\)"):
        LinearPath.between(nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 4)))
    with pytest.raises(ArchitectureError, match="only the first has 'bias'"):
        LinearPath.between(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    with pytest.raises(ArchitectureError, match="only the second has 'bias'"):
        LinearPath.between(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))


def test_states_that_do_not_fit() -> None:
    net = nn.Linear(2, 2)
    state = net.state_dict()
    with pytest.raises(ArchitectureError, match="end state to hold 'bias'"):
        LinearPath(net, state, {"weight": state["weight"]})
    with pytest.raises(ArchitectureError, match="start state to fit the network but it has no 'extra'"):
        LinearPath(net, {**state, "extra": torch.zeros(1)}, state)
    with pytest.raises(ArchitectureError, match=r"'bias' of shape \(2,\) in the bend 0 state but got \(3,\)"):
        BezierPath(net, state, state, {**state, "bias": torch.zeros(3)})
    with pytest.raises(ArchitectureError, match="0-d tensor as position"):
        LinearPath(net, state, state).state_at(torch.tensor([0.5]))
