"""Re-basins of networks with masks, infinite weights and other tensors that have no mean."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, RebasinWarning
from sinkhorn_rebasin.permutations import Layout, Slot


class Masked(nn.Module):
    """A layer with a mask over its weights, of any type."""

    def __init__(self, dtype: torch.dtype = torch.bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("keep", (torch.rand(8, 4) > 0.4).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.linear(x, self.a.weight.where(self.keep.bool(), 0), self.a.bias).relu())


def moving_mask(net: nn.Module, x: Tensor) -> sr.PermutationSpec:
    """The spec in which rows of the mask move with the hidden units."""
    slots = [("a.weight", 0), ("a.bias", 0), ("b.weight", 1), ("keep", 0)]
    return sr.PermutationSpec(
        (sr.Group("a", 8),),
        tuple(Slot("a", name, (axis,), Layout(1, 8)) for name, axis in slots),
        {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()},
        buffers=frozenset({"keep"}),
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_masks_move_with_their_units_and_are_compared_there(dtype: torch.dtype) -> None:
    reference, x = Masked(dtype), torch.randn(6, 4)
    spec = moving_mask(reference, x)
    planted = sr.random_permutations(spec, generator=torch.Generator().manual_seed(1))
    target = copy.deepcopy(reference)
    target.load_state_dict(sr.permute_state(reference.state_dict(), spec, planted))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rebasin = sr.SinkhornRebasin(reference, target, x, spec=spec)
        for training in (True, False):
            states = [rebasin.train(training).state_at(at) for at in (0.0, 0.4, 1.0)]
            assert all(torch.equal(state["keep"], reference.keep) for state in states)
            assert all(state["keep"].dtype == dtype for state in states)
        torch.testing.assert_close(rebasin(x, at=0.5), reference(x))
        sr.evaluate_path(rebasin, [(x, torch.zeros(6, dtype=torch.long))], points=3)
    rebasin.train()(x, at=0.5).sum().backward()
    assert rebasin.scores["a"].grad.isfinite().all()


def test_masks_that_differ_keep_the_ends_exact_in_every_mode() -> None:
    reference, target, x = Masked(), Masked(), torch.randn(6, 4)
    rebasin = sr.SinkhornRebasin(reference, target, x, spec=moving_mask(reference, x))
    with pytest.warns(RebasinWarning, match="'keep'") as told:
        torch.testing.assert_close(rebasin.eval()(x, at=0.0), target(x))
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for training in (True, False):
            torch.testing.assert_close(rebasin.train(training)(x, at=1.0), reference(x))
        torch.testing.assert_close(rebasin.merge(1.0)(x), reference(x))
    labels = torch.zeros(6, dtype=torch.long)
    with pytest.warns(RebasinWarning, match="'keep'"):
        loss = sr.evaluate_path(rebasin, [(x, labels)], points=3).losses[-1]
    assert loss.item() == pytest.approx(F.cross_entropy(reference(x), labels).item())


class Gated(nn.Module):
    """Some of the hidden units are closed by an infinite weight."""

    def __init__(self, closed: tuple[int, ...] = (2,)) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.t = nn.Parameter(torch.randn(8))
        with torch.no_grad():
            self.t[list(closed)] = -torch.inf

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h.relu() * (h + self.t).softmax(-1)).relu())


DATA = [(torch.randn(16, 4), torch.randint(3, (16,)))]
MATCHERS: dict[str, Callable[..., Any]] = {
    "weights": sr.weight_matching,
    "cosine": sr.greedy_cosine,
    "transport": sr.ot_fusion,
    "annealing": lambda *a: sr.simulated_annealing(*a, steps=300),
    "activations": lambda *a: sr.activation_matching(*a, data=DATA),
    "straight": lambda *a: sr.straight_through(*a, data=DATA, criterion=F.cross_entropy, epochs=1),
    "sinkhorn": lambda *a: sr.sinkhorn_matching(*a, steps=5),
    "midpoint": lambda *a: sr.sinkhorn_matching(
        *a, data=DATA, loss="midpoint", criterion=F.cross_entropy, steps=5
    ),
}


@pytest.mark.parametrize("name", MATCHERS)
def test_matching_survives_infinite_weights(name: str) -> None:
    reference, target, x = Gated((2,)), Gated((5,)), torch.randn(6, 4)
    spec = sr.discover_symmetry(reference, x)
    assert any(slot.tensor == "t" for slot in spec.slots)
    found = MATCHERS[name](reference, target, spec)
    moved = copy.deepcopy(target)
    moved.load_state_dict(found.apply(target))
    torch.testing.assert_close(moved(x), target(x))
    if name in ("weights", "cosine", "transport"):
        assert moved.t.isinf().nonzero().item() == 2


@pytest.mark.parametrize("name", ["weights", "cosine", "transport", "annealing"])
def test_weights_that_are_no_numbers_are_refused_by_name(name: str) -> None:
    reference, target = Gated(), Gated()
    spec = sr.discover_symmetry(reference, torch.randn(6, 4))
    with torch.no_grad():
        target.t[0] = torch.nan
    with pytest.raises(ArchitectureError, match="'t' of the target holds NaN"):
        MATCHERS[name](reference, target, spec)


@pytest.mark.parametrize(
    "loss",
    [
        sr.WeightDistance("l2"),
        sr.WeightDistance("l1"),
        sr.WeightDistance("cosine"),
        sr.MidpointLoss(F.cross_entropy),
    ],
    ids=str,
)
def test_losses_are_finite_with_infinite_weights(loss: Any) -> None:
    reference, target, x = Gated((2,)), Gated((5,)), torch.randn(6, 4)
    rebasin = sr.SinkhornRebasin(reference, target, x)
    for mode in (True, False):
        value = loss(rebasin.train(mode), DATA[0])
        assert value.isfinite()
    rebasin.train()
    loss(rebasin, DATA[0]).backward()
    assert all(scores.grad.isfinite().all() for scores in rebasin.scores.values())
    losses = sr.evaluate_path(rebasin, DATA, points=5).losses
    assert losses.isfinite().all()
    state = rebasin.state_at(0.5, hard=True)
    expected = (rebasin.rebased_state(hard=True)["t"] + reference.t) / 2
    torch.testing.assert_close(state["t"], expected.detach())


def test_repair_survives_infinite_weights() -> None:
    nets = []
    for _ in range(2):
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        net.register_parameter("mask", nn.Parameter(torch.tensor([0.0, -torch.inf])))
        nets.append(net)
    x = torch.randn(32, 4)
    spec = replace(sr.discover_symmetry(nets[0], x))
    repair = sr.RepairAlongPath(*nets, spec, [x])
    middle = sr.LinearPath.between(nets[1], nets[0]).state_at(0.5)
    assert repair.position_of(middle) == pytest.approx(0.5, abs=1e-6)
