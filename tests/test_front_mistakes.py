"""Mistakes at the front doors: a spec that is no symmetry, a text for a list, a class for a criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import LossError, SpecError, SymmetryError

X = torch.linspace(-1, 1, 160).reshape(40, 4)
DATA = [(X, torch.arange(40) % 3)] * 3
QUIET: dict[str, Any] = {"progress": False}


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]


def no_symmetry() -> sr.PermutationSpec:
    """The rows of a weight alone, without the bias and the next layer."""
    return sr.PermutationSpec.from_axes_to_perm({"0.weight": ("P", None)}, networks()[0])


# Everything that takes a spec together with inputs to verify it on.
WITH_SPEC: dict[str, Callable[..., Any]] = {
    "align": lambda a, b, c, spec: sr.align(a, b, spec=spec, example_inputs=X, **QUIET),
    "align_many": lambda a, b, c, spec: sr.align_many([a, b, c], spec, example_inputs=X, **QUIET),
    "carry": lambda a, b, c, spec: sr.carry(c, a, b, spec=spec, example_inputs=X),
    "carry with data": lambda a, b, c, spec: sr.carry(c, a, b, spec=spec, data=DATA),
    "SinkhornRebasin": lambda a, b, c, spec: sr.SinkhornRebasin(a, b, X, spec=spec),
}


@pytest.mark.parametrize("name", WITH_SPEC)
def test_a_given_spec_that_is_no_symmetry_is_refused(name: str) -> None:
    with pytest.raises(SymmetryError, match=r"Expected permutations to leave the output .* 'P'"):
        WITH_SPEC[name](*networks(), no_symmetry())


def test_nothing_is_verified_without_a_trial() -> None:
    with pytest.raises(SymmetryError, match=r"at least one trial, .* but got 0"):
        sr.verify_symmetry(networks()[0], no_symmetry(), X, trials=0)


IGNORING: dict[str, Callable[..., Any]] = {
    "discover_symmetry": lambda a, b, spec: sr.discover_symmetry(a, X, ignore="2"),
    "align": lambda a, b, spec: sr.align(a, b, example_inputs=X, ignore="2", **QUIET),
    "align_many": lambda a, b, spec: sr.align_many([a, b], spec, ignore="2", **QUIET),
    "SinkhornRebasin": lambda a, b, spec: sr.SinkhornRebasin(a, b, X, ignore="2"),
    "given spec": lambda a, b, spec: sr.SinkhornRebasin(a, b, spec=spec, ignore="2"),
}


@pytest.mark.parametrize("name", IGNORING)
def test_a_text_is_no_list_of_layers(name: str) -> None:
    a, b, _ = networks()
    with pytest.raises(
        SpecError, match=r"Expected a list of layers to ignore but got the text '2': write \['2'\]"
    ):
        IGNORING[name](a, b, sr.discover_symmetry(a, X))


WITH_CRITERION: dict[str, Callable[..., Any]] = {
    "align": lambda a, b, c, of: sr.align(a, b, DATA, criterion=of, **QUIET),
    "align_many": lambda a, b, c, of: sr.align_many([a, b], train=DATA, criterion=of, **QUIET),
    "compare": lambda a, b, c, of: sr.compare([a, b], c, DATA, criterion=of),
    "evaluate_path": lambda a, b, c, of: sr.evaluate_path((a, b), DATA, criterion=of),
    "diagonal_fisher": lambda a, b, c, of: sr.diagonal_fisher(a, DATA, criterion=of),
    "carry": lambda a, b, c, of: sr.carry(c, a, b, data=DATA, criterion=of),
}


@pytest.mark.parametrize("name", WITH_CRITERION)
def test_a_class_is_no_criterion(name: str) -> None:
    with pytest.raises(LossError, match=r"got the class CrossEntropyLoss: pass one of its objects"):
        WITH_CRITERION[name](*networks(), nn.CrossEntropyLoss)
