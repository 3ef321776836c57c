from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import ArchitectureError, CheckpointError
from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.merging import ManyAlignment, cycle_error, match_many, merge_many
from sinkhorn_rebasin.merging.states import mean_state
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry
from tests.matcher_contract import equal
from tests.merging.test_merge_many import unrelated


def test_ways_between_networks_carry_them_and_agree_around_every_three() -> None:
    networks = unrelated(4)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    many = match_many(networks, spec)
    states = many.apply(networks)
    for to, start in itertools.permutations(range(4), 2):
        carried = many.between(to, start).apply(networks[start])
        assert equal(many[to].apply(carried), states[start])
    assert many.cycle_error() == 0


def test_pairs_matched_apart_contradict_each_other() -> None:
    networks = unrelated(3)
    spec = discover_symmetry(networks[0], torch.ones(2, 5))
    apart = {
        (to, start): weight_matching(networks[to], networks[start], spec)
        for to, start in itertools.permutations(range(3), 2)
    }
    error = cycle_error(apart)
    around = apart[0, 1].compose(apart[1, 2]).compose(apart[2, 0])
    units = [number for order in around.permutations.values() for number in enumerate(order.tolist())]
    assert error == sum(i != j for i, j in units) / len(units) > 0
    assert cycle_error({(0, 1): apart[0, 1], (1, 0): apart[1, 0]}) == 0


def test_a_folder_brings_back_what_was_saved(tmp_path: Path) -> None:
    networks = unrelated(3)
    many = match_many(networks, discover_symmetry(networks[0], torch.ones(2, 5)))
    many.save(tmp_path / "many")
    again = ManyAlignment.load(tmp_path / "many")
    assert (again.objective, again.converged, again.method) == (many.objective, True, "merge_many")
    assert all(equal(a.permutations, b.permutations) for a, b in zip(again, many, strict=True))
    (tmp_path / "many" / "1.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"0.safetensors, 1.safetensors and so on .* \['0.safetensors', '2"
    ):
        ManyAlignment.load(tmp_path / "many")


def test_wrong_numbers_of_networks_and_shares_are_named() -> None:
    networks = unrelated(3)
    many = match_many(networks, discover_symmetry(networks[0], torch.ones(2, 5)))
    with pytest.raises(ArchitectureError, match="one network an alignment, 3, but got 2"):
        many.merge(networks[:2])
    with pytest.raises(ArchitectureError, match="one share a network, 3 of them, but got 2"):
        merge_many(networks, many, [0.5, 0.5])
    with pytest.raises(ArchitectureError, match=r"add up to 1 but got a sum of 1\.5"):
        merge_many(networks, many, [0.5, 0.5, 0.5])
    with pytest.raises(ArchitectureError, match=r"3 numbers that add up to 1, but got 0\.5"):
        many.merge(networks, 0.5)  # type: ignore[call-overload]
    with pytest.raises(ArchitectureError, match="at least one alignment but got none"):
        merge_many([], [])
    with pytest.raises(ArchitectureError, match="one of merge_many, universe, frank_wolfe but got 'best'"):
        match_many(networks, many.spec, method="best")  # type: ignore[arg-type]
    assert "3 networks" in repr(many)
    assert "merge_many" in many._repr_html_()


SEVERAL: dict[str, Callable[[Any, PermutationSpec], Any]] = {
    "match_many": match_many,
    "align_many": sr.align_many,
    "JointRebasin": lambda networks, spec: sr.JointRebasin(networks, spec=spec),
    "fedma": lambda networks, _: sr.fedma(networks, torch.ones(2, 5)),
    "compare": lambda networks, _: sr.compare(networks, torch.nn.Linear(5, 2), []),
    "Ensemble": lambda networks, _: sr.Ensemble(networks),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_what_is_no_list_of_networks_is_refused_by_its_kind(name: str) -> None:
    first, second = unrelated(2)
    spec = discover_symmetry(first, torch.ones(2, 5))
    for given in ({"a": first, "b": second}, (net for net in (first, second)), first, 3):
        told = rf"a list of at least two networks .* but got {type(given).__name__}: pass"
        with pytest.raises(ArchitectureError, match=told):
            SEVERAL[name](given, spec)
    with pytest.raises(ArchitectureError, match=r"at least two networks .* but got 1"):
        SEVERAL[name]([first], spec)


def test_networks_without_a_share_do_not_count() -> None:
    first, second = ({"mask": torch.tensor([-torch.inf, value])} for value in (1.0, 2.0))
    assert mean_state([first, second], [1.0, 0.0])["mask"].tolist() == [-torch.inf, 1.0]
    assert mean_state([first, second], [0.0, 1.0])["mask"].tolist() == [-torch.inf, 2.0]
