"""Tensors made of lists of tensors: their values have left the run, and it goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkhorn_rebasin.networks.value_reads import ValueReads
from sinkhorn_rebasin.permutations import permute_state, random_permutations
from sinkhorn_rebasin.symmetry import discover_symmetry
from sinkhorn_rebasin.symmetry.tracing.tape import Tape
from tests.symmetry.witness import difference
from tests.zoo.case import Function


def hidden(net: Any, x: Tensor) -> Tensor:
    return net.a(x).relu()


def of_rows(make: Callable[[list[Tensor], Tensor], Tensor]) -> Callable[..., Tensor]:
    """One number for each row of the batch, added to the output."""
    return lambda net, x: (
        net.b(hidden(net, x)) + make([row.sum() for row in hidden(net, x)], x)[:, None].to(x)
    )


def of_units(make: Callable[[list[Tensor], Tensor], Tensor]) -> Callable[..., Tensor]:
    """One number for each unit, which unit it belongs to being lost."""
    return lambda net, x: net.b(hidden(net, x) * make([unit.mean() for unit in hidden(net, x).T], x).to(x))


MAKERS: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
    "tensor": lambda items, x: torch.tensor(items),
    "nested": lambda items, x: torch.tensor([items])[0],
    "as_tensor": lambda items, x: torch.as_tensor(items),
    "asarray": lambda items, x: torch.asarray(items),
    "new_tensor": lambda items, x: x.new_tensor(items),
    "new": lambda items, x: x.new(items),
    "Tensor": lambda items, x: torch.Tensor(items),
    "FloatTensor": lambda items, x: torch.FloatTensor(items),
    "sparse": lambda items, x: torch.sparse_coo_tensor(
        [list(range(len(items)))], items, check_invariants=False
    ).to_dense(),
}


def network(run: Callable[..., Tensor]) -> nn.Module:
    return Function(run, a=nn.Linear(3, 8), b=nn.Linear(8, 2)).double()


def change_and_sizes(run: Callable[..., Tensor]) -> tuple[float, list[int]]:
    torch.manual_seed(0)
    model = network(run)
    spec = discover_symmetry(model, torch.randn(4, 3).double())
    moved = permute_state(model.state_dict(), spec, random_permutations(spec))
    change = max(difference(model, moved, scale * torch.randn(4, 3).double()) for scale in (0.1, 1, 10))
    return change, sorted(group.size for group in spec.groups)


@pytest.mark.parametrize("name", MAKERS)
def test_numbers_of_rows_leave_the_units_free(name: str) -> None:
    change, sizes = change_and_sizes(of_rows(MAKERS[name]))
    assert change < 1e-12
    assert sizes == [8]


@pytest.mark.parametrize("name", MAKERS)
def test_numbers_of_units_fix_them(name: str) -> None:
    change, sizes = change_and_sizes(of_units(MAKERS[name]))
    assert change < 1e-12
    assert sizes == []


def test_numbers_that_happen_to_agree_are_told_apart() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        mask = torch.tensor([(x.sum() > bound).double() for bound in range(8)])
        return net.b(hidden(net, x) * mask)

    assert change_and_sizes(run) == (0.0, [])


def test_an_index_of_read_values_is_followed() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.b(hidden(net, x))[torch.tensor([(row.sum() > 0).long() for row in x])]

    change, sizes = change_and_sizes(run)
    assert change < 1e-12
    assert sizes == [8]


def split(places: Callable[[Tensor, Tensor], Tensor], dim: int) -> Callable[..., Tensor]:
    def run(net: Any, x: Tensor) -> Tensor:
        h = hidden(net, x) if dim else net.b(hidden(net, x))
        first, second = torch.tensor_split(h, places(h, x), dim=dim)
        joined = torch.cat([first * 2, second], dim)
        return net.b(joined) if dim else joined

    return run


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (split(lambda h, x: torch.tensor([3]), 1), [3, 5]),
        (split(lambda h, x: h.mean(0).argmax()[None], 1), []),
        (split(lambda h, x: (x[:, 0] > 0).sum()[None], 0), [8]),
    ],
    ids=["constant", "by units", "of the batch"],
)
def test_places_to_split_at_are_read(run: Callable[..., Tensor], expected: list[int]) -> None:
    change, sizes = change_and_sizes(run)
    assert change < 1e-12
    assert sizes == expected


def test_lengths_of_a_loss_are_read() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        scores = net.b(hidden(net, x))[:, None].log_softmax(-1)
        return F.ctc_loss(scores, torch.ones(1, 2).long(), torch.tensor([4]), torch.tensor([2]))

    change, sizes = change_and_sizes(run)
    assert change < 1e-12
    assert sizes == [8]


def test_what_is_made_is_a_constant_of_fixed_places() -> None:
    made: list[Tensor] = []
    read: list[Tensor] = []
    with ValueReads(read.append, made.append):
        values = torch.func.functionalize(lambda x: torch.tensor([x.sum(), 1.0]) * 2)(torch.ones(3))
    assert [tensor.item() for tensor in read] == [3.0]
    assert made[0].tolist() == [3.0, 1.0]
    assert values.tolist() == [6.0, 2.0]
    tape = Tape({})
    tape.note_made(made[0])
    assert tape.labelling.knows(made[0])
    assert not tape.labelling.labels(made[0]).units.size


def test_lists_of_plain_numbers_are_no_reads() -> None:
    read: list[Tensor] = []
    with ValueReads(read.append, read.append):
        torch.tensor([1.0, 2.0])
        torch.tensor(torch.ones(2).numel())
    assert read == []


def test_nothing_is_said_of_a_network_that_reads_its_inputs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change_and_sizes(of_rows(MAKERS["tensor"]))
