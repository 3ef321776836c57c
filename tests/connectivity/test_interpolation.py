"""What lies between two states: means, infinities, masks and eight-bit floats."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sinkhorn_rebasin import LinearPath, SinkhornRebasin
from sinkhorn_rebasin.connectivity import BezierPath
from sinkhorn_rebasin.connectivity.interpolation import interpolate, lerp
from sinkhorn_rebasin.errors import RebasinWarning

POSITIONS = [0.0, 0.25, 0.5, 0.75, 1.0, torch.tensor(0.3), torch.tensor(0.5)]
ODD = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0, 0.1, 1e-42])


def bits(tensor: Tensor) -> list[int]:
    """The memory of a tensor as integers."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()]).tolist()


class Holder(nn.Module):
    """A weight and one buffer of whatever kind."""

    def __init__(self, weight: Tensor, buffer: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=weight.is_floating_point())
        self.register_buffer("buffer", buffer)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


def curves(start: nn.Module, end: nn.Module) -> list[LinearPath | BezierPath]:
    control = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    return [
        LinearPath.between(start, end),
        BezierPath(start, start.state_dict(), end.state_dict(), control),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("at", POSITIONS, ids=str)
def test_equal_tensors_pass_through_bit_for_bit(at: float | Tensor, dtype: torch.dtype) -> None:
    odd = ODD.to(dtype)
    net = Holder(odd, odd.clone())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for curve in curves(net, Holder(odd.clone(), odd.clone())):
            for value in curve.state_at(at).values():
                assert bits(value) == bits(odd)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])),
        (torch.tensor([0.0, -torch.inf]), torch.tensor([-torch.inf, 0.0])),
        (torch.tensor([3, 4]), torch.tensor([5, 4])),
        (torch.tensor([3, 4], dtype=torch.int8), torch.tensor([5, 4], dtype=torch.int8)),
        (torch.eye(2).to_sparse(), torch.ones(2, 2).to_sparse()),
        (torch.tensor([1.0, 0.0]).to(torch.float8_e5m2), torch.tensor([1.0, 1.0]).to(torch.float8_e5m2)),
    ],
    ids=["bool", "mask", "infinite", "integer", "int8", "sparse", "float8"],
)
def test_other_buffers_are_those_of_the_nearer_end_and_named_once(ours: Tensor, theirs: Tensor) -> None:
    first, second = Holder(torch.zeros(2), ours), Holder(torch.ones(2), theirs)
    with pytest.warns(RebasinWarning, match="'buffer'") as told:
        path = LinearPath.between(first, second)
    assert len(told) == 1
    states = [path.state_at(at) for at in POSITIONS]
    for at, state in zip(POSITIONS, states, strict=True):
        expected = ours if float(at) < 0.5 else theirs
        assert bits(state["buffer"].to_dense()) == bits(expected.to_dense())
        torch.testing.assert_close(state["weight"], torch.full((2,), float(at)))


@pytest.mark.parametrize("method", [prune.l1_unstructured, prune.random_unstructured])
def test_masks_of_pruned_layers_stay_masks(method: Callable[..., object]) -> None:
    nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
    for net in nets:
        method(net[0], "weight", amount=0.4)
    with pytest.warns(RebasinWarning, match=r"'0\.weight_mask'"):
        path = LinearPath.between(*nets)
    assert set(path.state_at(0.5)["0.weight_mask"].unique().tolist()) <= {0.0, 1.0}
    x = torch.randn(5, 4)
    for at, net in enumerate(nets):
        assert torch.equal(path(x, at=float(at)), net(x))


class Frozen(nn.Module):
    """Batch norm with nothing but buffers, as detectors have."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(3) + 0.5)


@pytest.mark.parametrize(
    "make", [lambda: nn.BatchNorm1d(3), lambda: nn.InstanceNorm1d(3, track_running_stats=True), Frozen]
)
def test_statistics_of_norm_layers_are_mixed(make: Callable[[], nn.Module]) -> None:
    first, second = make(), make()
    with torch.no_grad():
        for net in (first, second):
            net.running_mean.normal_()
            net.running_var.uniform_(0.5, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = LinearPath.between(first, second).state_at(0.25)
    ours, theirs = first.state_dict(), second.state_dict()
    for name in state:
        if state[name].is_floating_point():
            torch.testing.assert_close(state[name], 0.75 * ours[name] + 0.25 * theirs[name])


class Average(nn.Module):
    """A layer that subtracts an average of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("level", torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x).relu()
        if self.training:
            self.level.lerp_(x.detach().mean(), 0.1)
        return self.outer(x - self.level)


def test_averages_that_a_run_moves_are_mixed_and_others_can_be_named() -> None:
    first, second, x = Average(), Average(), torch.randn(6, 4)
    mean = (first.level + second.level) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rebasin = SinkhornRebasin(first, second, x)
        torch.testing.assert_close(rebasin.state_at(0.5)["level"], mean)
        torch.testing.assert_close(rebasin.merge(0.5).level, mean)
        torch.testing.assert_close(rebasin.path().state_at(0.5)["level"], mean)
        named = LinearPath.between(first, second, statistics=["level"])
        torch.testing.assert_close(named.state_at(0.5)["level"], mean)
    with pytest.warns(RebasinWarning, match="'level'"):
        assert torch.equal(LinearPath.between(first, second).state_at(0.5)["level"], second.level)


class Packed(nn.Linear):
    """Keeps a table in its extra state."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.table = torch.randn(3)

    def get_extra_state(self) -> dict[str, Tensor]:
        return {"table": self.table}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.table = state["table"]


def test_tensors_that_are_in_no_state_are_named() -> None:
    nets = [nn.Linear(2, 2), nn.Linear(2, 2)]
    for number, net in enumerate(nets):
        net.register_buffer("gain", torch.tensor(float(number)), persistent=False)
    with pytest.warns(RebasinWarning, match="'gain'"):
        LinearPath.between(*nets)
    packed = Packed()
    with pytest.warns(RebasinWarning, match="'_extra_state'"):
        LinearPath.between(packed, Packed())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearPath.between(packed, copy.deepcopy(packed))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_means_are_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(1000, generator=generator).to(dtype) for _ in range(3))
    net = nn.Linear(1000, 1, bias=False)
    states = [{"weight": t[None]} for t in (first, second, third)]
    for at in (0.3, torch.tensor(0.3)):
        exact = 0.7 * first.double() + 0.3 * second.double()
        mixed = LinearPath(net, *states[:2]).state_at(at)["weight"][0]
        wrong = (mixed.double() - exact.to(dtype).double()).ne(0).double().mean().item()
        assert mixed.dtype == dtype
        assert wrong < 0.01  # small differences of large numbers, which single precision has not exactly
        bent = BezierPath(net, *states).state_at(at)["weight"][0]
        exact = 0.49 * first.double() + 0.42 * third.double() + 0.09 * second.double()
        assert (bent.double() - exact.to(dtype).double()).ne(0).double().mean().item() < 0.01


def test_eight_bit_floats_mix_with_wider_ones() -> None:
    narrow = torch.tensor([1.0, 2.0]).to(torch.float8_e5m2)
    mixed = interpolate({"w": narrow}, {"w": torch.tensor([2.0, 2.0])}, 0.5, ())["w"]
    assert mixed.dtype == torch.float32
    assert mixed.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_gradients_are_those_of_the_weighted_mean_where_both_ends_are_equal(at: float) -> None:
    start = torch.tensor([1.0, -torch.inf, 2.0], dtype=torch.float64).requires_grad_()
    end = torch.tensor([1.0, -torch.inf, 5.0], dtype=torch.float64).requires_grad_()
    at = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    mixed = lerp(start, end, at)
    mixed[[0, 2]].sum().backward()
    assert start.grad.tolist() == [1 - at, 0, 1 - at]
    assert end.grad.tolist() == [at, 0, at]
    assert at.grad.item() == 3.0
    assert mixed[1].item() == -torch.inf


def test_many_positions_at_once() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    path, positions = LinearPath.between(first, second), torch.rand(4)
    found = torch.vmap(lambda at: path.state_at(at)["weight"])(positions)
    torch.testing.assert_close(found[2], path.state_at(float(positions[2]))["weight"])
