from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin import diagonal_fisher
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError, RebasinWarning
from tests.curvature.brute_force import (
    fisher_matrix,
    flat,
    random_difference,
    scores,
    weighted_scores,
)
from tests.rebasin.rebasin_problems import NETWORKS, inputs, network

LABELS = torch.tensor([0, 1, 1, 0])


def by_hand(net: nn.Module, given: Any, labels: Tensor | None) -> dict[str, Tensor]:
    found = weighted_scores(net, given, 4, labels)
    return {name: sum(one[name].square() for one in found) for name in found[0]}


def double(name: str) -> tuple[nn.Module, Any]:
    given = inputs(name)
    if isinstance(given, dict):
        return network(name, 1).double().eval(), {key: value.double() for key, value in given.items()}
    if isinstance(given, tuple):
        return network(name, 1).double().eval(), tuple(value.double() for value in given)
    return network(name, 1).double().eval(), given.double()


@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("name", NETWORKS)
def test_expected_and_observed_labels_against_loops(name: str, chunk_size: int | None) -> None:
    net, given = double(name)
    for labels, kind in ((None, "expected"), (LABELS, "observed")):
        fisher = diagonal_fisher(net, [(given, LABELS)], labels=kind, chunk_size=chunk_size)
        assert fisher.samples == 4
        expected = by_hand(net, given, labels)
        assert fisher.diagonal.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(fisher.diagonal[key], value, rtol=1e-9, atol=1e-14)


def test_batches_of_unequal_size_count_by_their_samples() -> None:
    net, given = double("mlp")
    whole = diagonal_fisher(net, [(given, LABELS)], labels="observed").diagonal
    parts = diagonal_fisher(
        net, [(given[:1], LABELS[:1]), (given[1:], LABELS[1:])], labels="observed", chunk_size=2
    )
    assert parts.samples == 4
    for name, value in parts.diagonal.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-10, atol=1e-15)
    first = diagonal_fisher(net, [(given[:1], LABELS[:1]), (given, LABELS)], labels="observed", batches=1)
    assert first.samples == 1


def test_sampled_labels_tend_to_the_expectation_and_follow_the_generator() -> None:
    net, given = double("mlp")
    exact = diagonal_fisher(net, [given], labels="expected").diagonal
    many = diagonal_fisher(net, [given], draws=300, chunk_size=None).diagonal
    one, again = (diagonal_fisher(net, [given]).diagonal for _ in range(2))
    other = diagonal_fisher(net, [given], generator=torch.Generator().manual_seed(5)).diagonal
    name = "2.weight"
    assert float((many[name] - exact[name]).norm() / exact[name].norm()) < 0.2
    assert float((one[name] - exact[name]).norm() / exact[name].norm()) > 0.2
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])


def test_memory_does_not_grow_with_the_number_of_chunks() -> None:
    net, alive = nn.Sequential(nn.Linear(37, 41), nn.Tanh(), nn.Linear(41, 2)), []

    def criterion(outputs: Tensor, labels: Tensor) -> Tensor:
        alive.append(sum(type(one) is Tensor and one.shape == (41, 37) for one in gc.get_objects()))
        return F.cross_entropy(outputs, labels)

    most = []
    for samples in (4, 12):
        alive.clear()
        x, labels = torch.randn(samples, 37), torch.zeros(samples, dtype=torch.long)
        diagonal_fisher(net, [(x, labels)], criterion, labels="observed", chunk_size=2)
        assert len(alive) == samples / 2
        most.append(max(alive))
    assert most[0] == most[1]


class Branching(nn.Module):
    """Chooses its layer by the value of its input, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if bool((x.sum() > 0).all()) else self.two(x)


def test_what_vmap_cannot_run_is_said_and_done_sample_by_sample() -> None:
    torch.manual_seed(0)
    net, x = Branching().double(), torch.randn(6, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    with pytest.warns(RebasinWarning, match=r"Branching.*one after the other") as warned:
        fisher = diagonal_fisher(net, [(x, labels)], labels="observed")
    assert warned[0].filename == __file__
    quiet = diagonal_fisher(net, [(x, labels)], labels="observed", chunk_size=1)
    expected = [scores(net, x, number, label) for number, label in enumerate(labels)]
    for name in dict(net.named_parameters()):
        mean = sum(one[name].square() for one in expected) / 6
        torch.testing.assert_close(fisher.diagonal[name], mean)
        torch.testing.assert_close(quiet.diagonal[name], mean)


class Complex(nn.Module):
    """One complex weight between real numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        product = x.to(self.weight.dtype) @ self.weight.T
        return product.real + product.imag.square()


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_the_parts_of_complex_numbers_have_curvatures_of_their_own(chunk_size: int) -> None:
    torch.manual_seed(1)
    net, x, labels = Complex(), torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    found = diagonal_fisher(net, [(x, labels)], labels="observed", chunk_size=chunk_size).diagonal["weight"]
    step, expected = 1e-6, torch.zeros(2, 3, 2, dtype=torch.float64)
    with torch.no_grad():
        for place in range(12):
            losses = []
            for sign in (1, -1):
                moved = torch.view_as_real(net.weight.detach().clone())
                moved.view(-1)[place] += sign * step
                out = torch.func.functional_call(net, {"weight": torch.view_as_complex(moved)}, (x,))
                losses.append(F.cross_entropy(out, labels, reduction="none"))
            expected.view(-1)[place] = ((losses[0] - losses[1]) / (2 * step)).square().mean()
    torch.testing.assert_close(torch.view_as_real(found), expected, rtol=1e-6, atol=1e-9)


def test_words_with_their_classes_last() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
    words = torch.randint(7, (3, 5))

    def criterion(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), labels.flatten())

    found = diagonal_fisher(net, [(words, words.roll(1, 1))], criterion, labels="observed").diagonal
    expected = [scores(net, words, n, words.roll(1, 1)[n], criterion) for n in range(3)]
    for name in found:
        torch.testing.assert_close(found[name], sum(one[name].square() for one in expected) / 3)
    drawn = diagonal_fisher(net, [words], criterion, class_axis=-1, draws=2)
    assert drawn.samples == 3
    assert drawn.trace() > 0


def test_quadratic_form_trace_and_type() -> None:
    net, given = double("mlp")
    fisher = diagonal_fisher(net, [given], labels="expected")
    difference, exact = random_difference(net), fisher_matrix(net, given, 4)
    delta = flat(difference, net)
    torch.testing.assert_close(fisher.quadratic(difference), (exact.diagonal() * delta.square()).sum())
    assert fisher.trace() == pytest.approx(float(exact.trace()))
    narrow = fisher.to(dtype=torch.float32)
    assert narrow.diagonal["0.weight"].dtype == torch.float32
    assert narrow.quadratic(difference).dtype == torch.float64
    assert fisher.to("cpu").quadratic(difference) == fisher.quadratic(difference)


@pytest.mark.parametrize("name", ["residual", "tied"])
def test_nothing_that_is_passed_in_changes(name: str) -> None:
    net, given = network(name, 1).train(), inputs(name)
    next(iter(net.parameters())).requires_grad_(False)
    before, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    kept = [leaf.clone() for leaf in tree_leaves(given)]
    with torch.no_grad():
        fisher = diagonal_fisher(net, [given])
    assert list(fisher.diagonal) == [key for key, _ in net.named_parameters()]
    assert not any(value.requires_grad for value in fisher.diagonal.values())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(torch.equal(leaf, old) for leaf, old in zip(tree_leaves(given), kept, strict=True))
    assert all(module.training for module in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), rng)


def test_in_inference_mode() -> None:
    net, given = double("mlp")
    outside = diagonal_fisher(net, [given]).diagonal
    with torch.inference_mode():
        inside = diagonal_fisher(net, [given]).diagonal
    assert all(torch.equal(inside[name], outside[name]) for name in outside)


class Pair(nn.Module):
    """Returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), x


@pytest.mark.parametrize(
    ("net", "data", "options", "error", "text"),
    [
        (nn.Linear(2, 2), [], {}, DataError, "at least one sample"),
        (nn.Linear(2, 2), [torch.ones(0, 2)], {}, DataError, "at least one sample"),
        (nn.Linear(2, 2), [torch.ones(3, 2)], {"labels": "observed"}, DataError, "pair"),
        (nn.Linear(2, 2), [torch.ones(3, 2)], {"labels": "true"}, LossError, "'true'"),
        (nn.Linear(2, 2), [torch.ones(3, 2)], {"draws": 0}, LossError, "draws=0"),
        (nn.Linear(2, 2), [torch.ones(3, 2)], {"class_axis": 2}, LossError, "axis 2"),
        (nn.Linear(2, 2), [torch.ones(3, 2)], {"class_axis": 0}, LossError, "axis 0"),
        (nn.Linear(2, 2), [torch.ones(3, 2, 2)], {"labels": "expected"}, LossError, "sampled"),
        (nn.Linear(2, 2), [torch.full((3, 2), torch.nan)], {}, DataError, "finite"),
        (
            nn.Linear(2, 2),
            [(torch.ones(3, 2), torch.ones(2).long())],
            {"labels": "observed"},
            DataError,
            "along",
        ),
        (Pair(), [torch.ones(3, 2)], {}, ArchitectureError, "one tensor"),
        (
            nn.Linear(2, 2, dtype=torch.complex64),
            [torch.ones(3, 2, dtype=torch.complex64)],
            {},
            LossError,
            r"complex64: use labels='observed'",
        ),
    ],
)
def test_errors(net: nn.Module, data: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        diagonal_fisher(net, data, **options)


def test_a_difference_of_another_network_is_an_error() -> None:
    net, given = double("mlp")
    fisher, difference = diagonal_fisher(net, [given]), random_difference(net)
    with pytest.raises(ArchitectureError, match=r"'0.weight' of shape"):
        fisher.quadratic({**difference, "0.weight": torch.ones(2, 2)})
    del difference["0.weight"]
    with pytest.raises(ArchitectureError, match=r"'0.weight', which"):
        fisher.quadratic(difference)
