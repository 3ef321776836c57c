"""Tensors of the state dict decide nothing by their values: a spec is true of every network of the architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sinkhorn_rebasin import SinkhornRebasin, weight_matching
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.symmetry.witness import difference
from tests.zoo.case import Function


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class FrozenNorm(nn.Module):
    """Batch norm whose statistics and affine map are buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "variance"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.variance + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.mean * scale)[:, None, None]


class Quantised(nn.Module):
    """Rounds each channel to a step of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("step", torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x / self.step) * self.step


def frozen_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), FrozenNorm(8), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.Flatten())


def pruned() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    for layer in (net[0], net[2]):
        prune.random_unstructured(layer, "weight", 0.4)
    return net


def still_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=0.0), nn.ReLU(), nn.Linear(8, 3))


def gain(value: Tensor) -> nn.Module:
    return Function(
        lambda net, x: net.b((net.a(x) * net.gain).relu()), a=nn.Linear(4, 8), b=nn.Linear(8, 3), gain=value
    )


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3)).eval()


def once_set() -> nn.Module:
    """A flag of the state dict that is read."""

    def run(net: Function, x: Tensor) -> Tensor:
        return net.b((net.a(x) * (net.gain if bool(net.done) else 1.0)).relu())

    return Function(run, a=nn.Linear(4, 8), b=nn.Linear(8, 3), gain=torch.ones(8), done=torch.tensor(True))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "frozen norm": (frozen_norm, (2, 3, 5, 5)),
    "quantised": (lambda: nn.Sequential(nn.Linear(4, 8), Quantised(8), nn.ReLU(), nn.Linear(8, 3)), (6, 4)),
    "pruned": (pruned, (6, 4)),
    "momentum 0": (still_norm, (6, 4)),
    "gain of ones": (lambda: gain(torch.ones(8)), (6, 4)),
    "gain": (lambda: gain(torch.rand(8)), (6, 4)),
    "boolean mask": (lambda: gain(torch.ones(8, dtype=torch.bool)), (6, 4)),
    "spectral norm": (spectral, (6, 4)),
    "frozen layer": (
        lambda: Function(
            lambda net, x: net.b((x @ net.a.T + net.shift).relu()),
            a=torch.zeros(8, 4), shift=torch.zeros(8), b=nn.Linear(8, 3),
        ),
        (6, 4),
    ),
    "flag": (once_set, (6, 4)),
}  # fmt: skip


def redrawn(model: nn.Module) -> nn.Module:
    """Another network of the architecture: every float and boolean tensor of the state dict drawn anew."""
    other = standalone_copy(model)
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.2)
            elif tensor.dtype == torch.bool and tensor.dim():
                tensor.copy_(torch.rand(tensor.shape) > 0.5)
    return other


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_spec_is_true_of_every_network_of_its_architecture(name: str) -> None:
    make, shape = NETWORKS[name]
    model = make()
    spec = discover_symmetry(model, torch.randn(shape))
    assert [group.size for group in spec.groups] == [8]
    assert verify_symmetry(model, spec, torch.randn(shape)) < 1e-10
    for _ in range(3):
        other = redrawn(model).double().eval()
        moved = permute_state(other.state_dict(), spec, random_permutations(spec))
        assert difference(other, moved, torch.randn(shape).double()) < 1e-9
        assert discover_symmetry(other.float(), torch.randn(shape)) == spec


def test_integers_that_are_read_must_be_the_same() -> None:
    def ordered(order: Tensor) -> nn.Module:
        return Function(
            lambda net, x: net.b(net.a(x)[:, net.order].relu()),
            a=nn.Linear(4, 8), b=nn.Linear(8, 3), order=order, unread=torch.arange(3),
        )  # fmt: skip

    first, other = ordered(torch.arange(8)), ordered(torch.arange(8).roll(1))
    spec = discover_symmetry(first, torch.randn(6, 4))
    assert list(spec.constants) == ["order"]
    assert PermutationSpec.from_json(spec.to_json()) == spec
    for use in (
        lambda: weight_matching(first, other, spec),
        lambda: SinkhornRebasin(first, other, spec=spec),
        lambda: verify_symmetry(other, spec, torch.randn(6, 4)),
    ):
        with pytest.raises(SpecError, match="integers 'order' as in"):
            use()


def counting(used: Callable[[Tensor], Any]) -> nn.Module:
    """Counts its calls, and uses the count plus one."""

    def run(net: Function, x: Tensor) -> Tensor:
        net.calls.add_(1)
        return net.b(net.a(x).relu() * used(net.calls + 1))

    return Function(run, a=nn.Linear(4, 8), b=nn.Linear(8, 3), calls=torch.tensor(0)).eval()


def test_a_count_of_calls_may_differ() -> None:
    first, other = counting(lambda _: 1.0), counting(lambda _: 1.0)
    x = torch.randn(6, 4)
    spec = discover_symmetry(first, x)
    first(x)
    assert not spec.constants
    assert [group.size for group in spec.groups] == [8]
    assert weight_matching(first, other, spec).permutations.keys() == set(spec.names)
    assert discover_symmetry(first, x) == spec


@pytest.mark.parametrize(
    "used",
    [lambda n: n, Tensor.item, Tensor.tolist, lambda n: int(n.numpy()), lambda n: 2.0 if n % 2 else 1.0],
)
def test_a_count_that_counts_must_be_the_same(used: Callable[[Tensor], Any]) -> None:
    first, other = counting(used), counting(used)
    x = torch.randn(6, 4)
    spec = discover_symmetry(first, x)
    weight_matching(first, other, spec)
    first(x)
    with pytest.raises(SpecError, match="integers 'calls' as in"):
        weight_matching(first, other, spec)


def test_statistics_that_no_run_moves_have_slots() -> None:
    spec = discover_symmetry(still_norm(), torch.randn(6, 4))
    assert {slot.tensor for slot in spec.slots} >= {"1.running_mean", "1.running_var"}
    assert spec.buffers == {"1.running_mean", "1.running_var"}
