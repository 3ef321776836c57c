"""Tiny networks: every permutation of every axis is tried, and those that change nothing must be the spec's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin.permutations import PermutationSpec, permute_state
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.cases import randomise
from tests.zoo.case import Function

NETWORKS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)),
        (5, 2),
    ),
    "deep": (
        lambda: nn.Sequential(
            nn.Linear(1, 2, bias=False),
            nn.Tanh(),
            nn.Linear(2, 3, bias=False),
            nn.Tanh(),
            nn.Linear(3, 1, bias=False),
        ),
        (5, 1),
    ),
    "batch_norm": (
        lambda: nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Tanh(), nn.Linear(2, 1)),
        (5, 1),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv1d(1, 3, 1),
            nn.Conv1d(3, 3, 2, groups=3, bias=False),
            nn.Tanh(),
            nn.Conv1d(3, 1, 1, bias=False),
        ),
        (4, 1, 3),
    ),
    "flattened": (
        lambda: nn.Sequential(nn.Conv1d(1, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(4, 1)),
        (5, 1, 2),
    ),
    "residual": (
        lambda: Function(
            lambda net, x: net.c((h := net.a(x)) + torch.tanh(net.b(h))),
            a=nn.Linear(1, 3, bias=False),
            b=nn.Linear(3, 3, bias=False),
            c=nn.Linear(3, 1),
        ),
        (5, 1),
    ),
    "fixed_by_the_order": (
        lambda: Function(
            lambda net, x: net.b(net.a(x).tanh().cumsum(1)), a=nn.Linear(1, 3), b=nn.Linear(3, 1, bias=False)
        ),
        (5, 1),
    ),
    "mask": (
        lambda: Function(
            lambda net, x: net.b((net.a(x) * torch.tensor([1.0, 2.0, 1.0, 2.0], dtype=x.dtype)).tanh()),
            a=nn.Linear(1, 4, bias=False),
            b=nn.Linear(4, 1),
        ),
        (5, 1),
    ),
}


def every_axis_permutation(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state with every combination of permutations of all axes of all tensors."""
    axes = [(name, axis) for name, tensor in state.items() for axis, n in enumerate(tensor.shape) if n > 1]
    choices = [[torch.tensor(p) for p in itertools.permutations(range(state[n].shape[a]))] for n, a in axes]
    for chosen in itertools.product(*choices):
        moved = dict(state)
        for (name, axis), order in zip(axes, chosen, strict=True):
            moved[name] = moved[name].index_select(axis, order)
        yield moved


def every_claim(state: dict[str, Tensor], spec: PermutationSpec) -> Iterator[dict[str, Tensor]]:
    """The state under every combination of permutations of a spec without nested groups."""
    choices = [[torch.tensor(p) for p in itertools.permutations(range(g.size))] for g in spec.groups]
    for chosen in itertools.product(*choices):
        yield permute_state(state, spec, dict(zip(spec.names, chosen, strict=True)))


def key(state: dict[str, Tensor]) -> tuple[float, ...]:
    return tuple(torch.cat([tensor.flatten() for tensor in state.values()]).tolist())


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_exactly_the_permutations_that_change_nothing_are_found(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = randomise(make()).double().eval()
    inputs = torch.randn(shape, dtype=torch.float64)
    spec = discover_symmetry(model, inputs)
    assert all(group.blocks == 1 for group in spec.groups)
    state = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    expected = model(inputs)
    harmless = {
        key(moved)
        for moved in every_axis_permutation(state)
        if torch.allclose(torch.func.functional_call(model, moved, inputs), expected, rtol=0, atol=1e-12)
    }
    claimed = {key(moved) for moved in every_claim(state, spec)}
    assert harmless == claimed
