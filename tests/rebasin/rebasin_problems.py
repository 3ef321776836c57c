"""Small networks, how to run and compare them, and planted problems that the tests of re-basins share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin import (
    PermutationSpec,
    SinkhornRebasin,
    discover_symmetry,
    permute_state,
    random_permutations,
    verify_symmetry,
)


class Residual(nn.Module):
    """Convolutions with batch norm, a residual connection and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.block, self.inner = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.inner(self.block(x)).relu()
        return self.head(self.drop(x.mean((2, 3))))


class Grouped(nn.Module):
    """A grouped convolution between two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 9, 3, groups=3)
        self.c = nn.Conv2d(9, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu()).flatten(1)


class TwoInputs(nn.Module):
    """Takes two inputs, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 7), nn.Linear(2, 7), nn.Linear(7, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(torch.tanh(self.left(left) + self.right(right)))


class TiedLayers(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.third.weight = self.second.weight
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.third(self.second(self.first(x).relu()).relu()).relu())


def mlp(width: int = 8) -> nn.Module:
    """Two hidden layers, five inputs, three classes."""
    return nn.Sequential(
        nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3)
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "mlp": (mlp, lambda: torch.randn(4, 5)),
    "residual": (Residual, lambda: torch.randn(4, 2, 5, 5)),
    "grouped": (Grouped, lambda: torch.randn(4, 2, 4, 4)),
    "positional": (TwoInputs, lambda: (torch.randn(4, 3), torch.randn(4, 2))),
    "keywords": (TwoInputs, lambda: {"right": torch.randn(4, 2), "left": torch.randn(4, 3)}),
    "tied": (TiedLayers, lambda: torch.randn(4, 4)),
}


def network(name: str, seed: int) -> nn.Module:
    """The network with every tensor random, running statistics and norm parameters included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = NETWORKS[name][0]()
        with torch.no_grad():
            for tensor in [*built.parameters(), *built.buffers()]:
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.copy_(torch.rand_like(tensor) + 0.5)
    return built


def inputs(name: str, seed: int = 0) -> Any:
    """Inputs of the network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name][1]()


@cache
def spec_of(name: str) -> PermutationSpec:
    """The symmetries of the network, discovered and verified once."""
    reference, given = network(name, 1).eval(), inputs(name)
    spec = discover_symmetry(reference, given)
    assert verify_symmetry(reference, spec, given) < 1e-9
    return spec


def built(name: str = "mlp", **options: Any) -> tuple[nn.Module, nn.Module, SinkhornRebasin]:
    """Reference, target and their re-basin, whose permutations are not the identity.

    Without ``spec=None, check=True`` it takes the spec that was found before, and does not check it again.
    """
    reference, target = network(name, 1).eval(), network(name, 2).eval()
    found = {"spec": spec_of(name), "check": False}
    drawn = {"noise": 1.0, "start": "identity", "generator": torch.Generator().manual_seed(3)}
    options = {**found, **drawn, **options}
    return reference, target, SinkhornRebasin(reference, target, inputs(name), **options)


def planted(width: int = 8, seed: int = 0) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """A network, the same with its units shuffled, and the permutations that undo the shuffling."""
    from sinkhorn_rebasin.permutations import inverse

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference, target = mlp(width), mlp(width)
    spec = discover_symmetry(reference, torch.zeros(2, 5))
    shuffle = random_permutations(spec, generator=torch.Generator().manual_seed(seed))
    target.load_state_dict(permute_state(reference.state_dict(), spec, shuffle))
    return reference, target, inverse(spec, shuffle)


def call(model: nn.Module, given: Any) -> Tensor:
    """The output of a network, however its inputs are given."""
    if isinstance(given, dict):
        return model(**given)
    return model(*given) if isinstance(given, tuple) else model(given)


def wide(given: Any) -> Any:
    """The inputs in float64."""
    if isinstance(given, dict):
        return {name: tensor.double() for name, tensor in given.items()}
    return tuple(tensor.double() for tensor in given) if isinstance(given, tuple) else given.double()


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value expected."""
    return float(((found - expected).abs().max() / expected.abs().max()).detach())
