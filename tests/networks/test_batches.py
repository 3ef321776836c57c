"""Batches as people have them, and what is said of those that are not understood."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.networks.batches import move_to, read_batch

X, Y, MASK = torch.zeros(4, 2), torch.ones(4), torch.ones(4, 2)


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else x * mask


class Flagged(nn.Module):
    def forward(self, x: Tensor, verbose: bool = False) -> Tensor:
        return x


class OwnLabels(nn.Module):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return x


class Conditional(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class Sample(NamedTuple):
    x: Tensor
    weights: Tensor | None
    y: Tensor


class Pair(NamedTuple):
    x: Tensor
    mask: Tensor


@dataclass
class Graph:
    x: Tensor
    y: Tensor | None = None


@pytest.mark.parametrize(
    ("batch", "inputs", "labels"),
    [
        ((X, Y), X, Y),
        ([X, Y], X, Y),
        (((X, MASK), Y), (X, MASK), Y),
        (((X,), Y), (X,), Y),
        ({"x": X, "mask": MASK, "labels": Y}, {"x": X, "mask": MASK}, Y),
        (UserDict(x=X, label=Y), {"x": X}, Y),
        (Sample(X, None, Y), X, Y),
        (Sample(X, None, Y)._asdict(), {"x": X, "weights": None}, Y),
    ],
    ids=["tuple", "list", "two-inputs", "one-tuple", "dict", "mapping", "named-tuple", "dict-of-none"],
)
def test_what_is_known(batch: Any, inputs: Any, labels: Any) -> None:
    found, other = read_batch(batch)
    assert other is labels
    assert type(found) is type(inputs)
    same = found is inputs or list(found) == list(inputs)
    assert same


def test_an_object_is_the_input_and_its_labels_are_known() -> None:
    graph = Graph(X, Y)
    assert read_batch(graph)[0] is graph
    assert read_batch(graph)[1] is Y
    assert read_batch(Graph(X), labelled=False) == (Graph(X), None)
    with pytest.raises(DataError, match="no labels"):
        read_batch(Graph(X))


def test_what_needs_no_labels_takes_inputs_alone() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    for inputs in (X, {"x": X}, (X,), [X], ((X, MASK),), packed):
        assert read_batch(inputs, labelled=False) == (inputs, None)


def test_a_second_tensor_is_never_dropped() -> None:
    with pytest.raises(DataError, match=r"`\(\(x, mask\), labels\)`.*`\(\(a, b\),\)`.*batch="):
        read_batch((X, MASK), network=Masked(), labelled=False)
    with pytest.raises(DataError, match="never dropped"):
        read_batch((X, MASK), network=One(), labelled=False, example=("x", "mask"))
    with pytest.raises(DataError, match="never dropped"):
        read_batch((X, MASK), network=nn.Bilinear(2, 2, 1), labelled=False)
    with pytest.raises(DataError, match="never dropped"):
        read_batch(Pair(X, MASK), network=One(), labelled=False)
    for network in (One(), Flagged(), nn.Sequential(nn.Linear(2, 2))):
        assert read_batch((X, Y), network=network, labelled=False)[0] is X
    assert read_batch((X, Y), network=Masked(), labelled=False, example=("x",))[0] is X
    for batch in (((X, MASK), None), ((X,), Y), ({"x": X}, Y), (X, None)):
        assert read_batch(batch, network=Masked(), labelled=False)[0] is batch[0]


def test_fields_that_are_arguments_are_given_by_name() -> None:
    assert read_batch(Pair(X, MASK), network=Masked(), labelled=False)[0] == {"x": X, "mask": MASK}
    inputs, labels = read_batch({"x": X, "labels": Y}, network=OwnLabels())
    assert inputs["labels"] is labels is Y


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    "batch", [(X, MASK, Y), [X, MASK, Y, Y], Sample(X, MASK, Y)], ids=["three", "four", "named"]
)
def test_what_is_not_known_is_refused_by_one_message(batch: Any, labelled: bool) -> None:
    with pytest.raises(DataError, match=r"pair \(inputs, labels\) but got.*write `\(\(.*batch="):
        read_batch(batch, labelled=labelled)


def test_a_name_that_is_an_argument_too_is_refused() -> None:
    with pytest.raises(DataError, match=r"'y' may be its labels.*batch="):
        read_batch({"x": X, "y": Y}, network=Conditional())


@pytest.mark.parametrize("batch", [None, (), {}, (None, Y), ({}, Y), {"labels": Y}, object(), ([], Y)])
def test_a_batch_without_inputs_is_refused(batch: Any) -> None:
    with pytest.raises(DataError, match="batch="):
        read_batch(batch, labelled=False)


def test_texts_and_arrays_are_inputs() -> None:
    for inputs in (["one text", "another"], X.numpy()):
        assert read_batch((inputs, Y))[0] is inputs


def test_an_adapter_is_asked_first() -> None:
    inputs, labels = read_batch((X, MASK, Y), lambda b: ((b[0], b[1]), b[2]))
    assert inputs[1] is MASK
    assert labels is Y
    assert read_batch((X, MASK), lambda b: (b, None), labelled=False)[0][1] is MASK


@pytest.mark.parametrize(
    "found", [None, X, (X,), (X, Y, Y), {"x": X, "y": Y}], ids=lambda f: type(f).__name__
)
def test_an_adapter_that_returns_the_wrong_thing(found: Any) -> None:
    with pytest.raises(DataError, match=r"batch= to return a pair \(inputs, labels\)"):
        read_batch((X, Y), lambda _: found)


def test_an_adapter_without_inputs_or_labels() -> None:
    with pytest.raises(DataError, match="no inputs"):
        read_batch((X, Y), lambda _: (None, Y))
    with pytest.raises(DataError, match="no labels"):
        read_batch((X, Y), lambda _: (X, None))
    with pytest.raises(DataError, match="to be a function"):
        read_batch((X, Y), "labels")  # type: ignore[arg-type]


def test_labels_that_are_no_distribution_are_refused_by_plain_cross_entropy() -> None:
    with pytest.raises(DataError, match=r"adds up to 2 .*criterion="):
        read_batch((X, torch.ones(4, 2)), criterion=F.cross_entropy)
    with pytest.raises(DataError, match="an entry -1"):
        read_batch((X, torch.tensor([[2.0, -1.0]])), criterion=F.cross_entropy)
    with pytest.raises(DataError, match="criterion="):
        read_batch((X, torch.full((2, 2), torch.nan)), criterion=F.cross_entropy)
    images = torch.rand(2, 3, 4, 4).softmax(1)
    for labels in (images, images.half(), images.bfloat16(), torch.tensor([0, 1]), torch.rand(4)):
        read_batch((X, labels), criterion=F.cross_entropy)
    for criterion in (nn.CrossEntropyLoss(), F.mse_loss, F.binary_cross_entropy):
        read_batch((X, torch.ones(4, 2)), criterion=criterion)


def test_move_to_reaches_every_depth() -> None:
    moved = move_to({"a": [X, (X, 3)], "b": "text", "g": Graph(X)}, torch.device("meta"))
    assert moved["a"][0].is_meta
    assert moved["a"][1][0].is_meta
    assert moved["g"].x.is_meta
    assert (moved["a"][1][1], moved["b"]) == (3, "text")
    assert not X.is_meta


def test_tensors_that_cannot_be_moved_are_named() -> None:
    graph = Graph(X, Y.to("meta"))
    with pytest.raises(DataError, match=r"\.x on cpu, \.y on meta"):
        move_to(graph, torch.device("cpu"))


def test_labels_made_in_inference_mode_can_be_trained_with() -> None:
    layer = nn.Linear(2, 3)
    with torch.inference_mode():
        batch = {"x": torch.ones(4, 2), "labels": (torch.full((4, 3), 0.25), torch.zeros(4))}
    _, (targets, classes) = read_batch(batch)
    F.mse_loss(layer(torch.ones(4, 2)), targets).backward()
    assert layer.weight.grad is not None
    assert targets.tolist() == batch["labels"][0].tolist()
    assert not classes.is_inference()
    _, known = read_batch((X, Y))
    assert known is Y
