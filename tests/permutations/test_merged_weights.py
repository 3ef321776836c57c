"""Mixed weights and their gradients by products, against autograd through the weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sinkhorn_rebasin import SinkhornRebasin
from sinkhorn_rebasin.losses.closed_form import ClosedForm
from sinkhorn_rebasin.losses.weight_products import every
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.merged_weights import MergedWeights
from sinkhorn_rebasin.rebasin import deferring
from tests.rebasin.rebasin_problems import NETWORKS, built, inputs


def slow(rebasin: SinkhornRebasin, at: float) -> dict[str, Tensor]:
    """The mixture through the re-based weights."""
    return rebasin.state_at(at, permutations=rebasin.permutations())


def soft(name: str) -> SinkhornRebasin:
    _, _, rebasin = built(name)
    return rebasin.double().train()


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_weights_and_their_gradient_are_those_of_autograd(name: str) -> None:
    rebasin = soft(name)
    fast, expected = rebasin.state_at(0.3), slow(rebasin, 0.3)
    assert list(fast) == list(expected)
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for state in (fast, expected):
        generator.manual_seed(0)
        floating = [tensor for tensor in state.values() if tensor.requires_grad]
        loss = sum((t * torch.randn(t.shape, generator=generator).double()).sum() for t in floating)
        gradients.append(torch.autograd.grad(loss, list(rebasin.scores.values())))
    for tensor in expected:
        torch.testing.assert_close(fast[tensor], expected[tensor], rtol=1e-9, atol=1e-10)
        assert fast[tensor].stride() == expected[tensor].stride()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * float(other.abs().max()))


def test_second_derivatives_are_those_of_autograd() -> None:
    rebasin = soft("mlp")
    scores, found = list(rebasin.scores.values()), []
    for state in (rebasin.state_at(0.5), slow(rebasin, 0.5)):
        loss = sum(tensor.pow(3).sum() for tensor in state.values())
        first = torch.autograd.grad(loss, scores, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), scores))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8 * float(other.abs().max()))


def test_changed_weights_and_statistics_are_seen_and_copies_are_apart() -> None:
    rebasin = soft("residual")
    rebasin.state_at(0.5)
    twin = copy.deepcopy(rebasin)
    for buffer in rebasin.target.buffers():
        if buffer.is_floating_point():
            buffer.add_(1.0)
    fast, expected = rebasin.state_at(0.5), slow(rebasin, 0.5)
    for name in expected:
        torch.testing.assert_close(fast[name], expected[name], rtol=1e-9, atol=1e-10)
    assert not torch.equal(twin.state_at(0.5)["stem.weight"], fast["stem.weight"])


def test_the_network_between_is_the_one_at_its_state() -> None:
    rebasin = soft("residual")
    given = inputs("residual").double()
    torch.testing.assert_close(rebasin(given, at=0.25), rebasin.run(slow(rebasin, 0.25), given))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_forward_and_reverse_derivatives_agree_with_differences() -> None:
    rebasin = soft("mlp")
    spec, matrices = rebasin.acting()  # type: ignore[misc]
    states = rebasin.target_state(), rebasin.reference_state()
    merged = MergedWeights(*states, spec, rebasin.spec.parameters, torch.float64)
    given = [matrices[name].detach().requires_grad_() for name in merged.groups]

    def mixed(*matrices: Tensor) -> Tensor:
        return torch.cat(
            [t.flatten() for t in merged(dict(zip(merged.groups, matrices, strict=True)), 0.3).values()]
        )

    def distance(*matrices: Tensor) -> Tensor:
        form = ClosedForm(*states, spec, spec.compared, torch.float64, bilinear=False)
        return form(dict(zip(merged.groups, matrices, strict=True)), every)

    for function in (mixed, distance):
        assert torch.autograd.gradcheck(function, given, check_forward_ad=True, fast_mode=True)
    vectors = torch.func.vmap(distance)(*(torch.stack([matrix, 2 * matrix]) for matrix in given))
    torch.testing.assert_close(vectors[0], distance(*given))


class WideConvolutions(nn.Module):
    """Convolutions with strides and paddings of several kinds, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 40, 3), nn.Conv2d(40, 36, 3, stride=2, padding=1, bias=False)
        self.norm, self.c = (
            nn.BatchNorm2d(36),
            nn.Conv2d(36, 38, (3, 2), padding="same", padding_mode="circular"),
        )
        self.d, self.e = nn.Conv2d(38, 34, 3), nn.Linear(34, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.norm(self.b(self.a(x).relu())).relu()).relu()
        return self.e(self.d(x).relu().mean((2, 3)))


class Wide(nn.Module):
    """Linear layers, one of which other code reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 160), nn.Linear(160, 144)
        self.c, self.d = nn.Linear(144, 150, bias=False), nn.Linear(150, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu()
        return self.d(self.c(x).relu()) + self.c.weight.square().mean()


@pytest.mark.parametrize(
    ("kind", "shape", "names"),
    [
        (Wide, (5, 3), ["b.weight", "c.weight"]),
        (Wide, (400, 3), []),
        (WideConvolutions, (2, 2, 7, 7), ["b.weight", "c.weight", "d.weight"]),
        (WideConvolutions, (40, 2, 7, 7), []),
    ],
)
def test_networks_between_run_the_same_with_weights_that_are_not_formed(
    kind: type[nn.Module], shape: tuple[int, ...], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pair = [kind().double() for _ in range(2)]
    given = torch.randn(shape).double()
    rebasin = SinkhornRebasin(*pair, given[:2], start="identity", noise=0.5, temperature=0.1).double().train()
    multiplied: list[str] = []
    product = MergedWeights.product

    def noted(self: MergedWeights, name: str, *others: Any) -> Tensor:
        multiplied.append(name)
        return product(self, name, *others)

    monkeypatch.setattr(MergedWeights, "product", noted)
    scores, found = list(rebasin.scores.values()), []
    for run in (lambda: rebasin(given, at=0.3), lambda: rebasin.run(slow(rebasin, 0.3), given)):
        for _ in range(2):  # of which the first is watched
            output = run()
        gradients = torch.autograd.grad(output.square().sum(), scores, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in gradients), scores)
        found.append([output, *gradients, *second])
    assert multiplied == names
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8 * float(other.detach().abs().max()))


def test_weights_of_a_network_that_is_compiled_are_formed() -> None:
    spec, matrices = soft("mlp").acting()  # type: ignore[misc]
    states = {name: torch.zeros(shape).double() for name, shape in spec.shapes.items()}
    merged = MergedWeights(states, states, spec, spec.parameters, torch.float64)
    network = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deferring, "FEW_ROWS", 1)
        assert deferring.deferred_weights(merged, network, matrices, 0.5)
        patch.setattr(network[4], "forward", torch.compile(network[4].forward, backend="eager"))
        assert not deferring.deferred_weights(merged, network, matrices, 0.5)


def test_rows_up_to_which_products_win_are_counted() -> None:
    groups = Group("a", 64), Group("b", 64)
    rows, columns = (Slot(name, "both", (axis,), Layout(1, 64)) for axis, name in enumerate("ab"))
    named = {name: [rows] for name in ("rows", "conv", "bias")}
    named |= {"both": [rows, columns], "columns": [columns], "kernel": [rows, columns]}
    slots = tuple(replace(slot, tensor=name) for name, parts in named.items() for slot in parts)
    shapes = {"both": (64, 64), "rows": (64, 64), "columns": (64, 64), "conv": (64, 64, 1, 1)}
    shapes |= {"kernel": (64, 64, 3, 3), "bias": (64,)}
    spec = PermutationSpec(groups, slots, shapes)
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    merged = MergedWeights(state, state, spec, shapes, torch.float32)
    # Of 5 n^3 and 7 n^2 a row, and of 2 n^3 and 4 n^2 a row, three quarters.
    counts = {name: merged.rows_multiplied(name) for name in shapes}
    assert counts == {"both": 34, "rows": 24, "columns": 24, "conv": 24, "kernel": 144, "bias": 0}
