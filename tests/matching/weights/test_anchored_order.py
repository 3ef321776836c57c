"""In what order the anchored start places groups, and by what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sinkhorn_rebasin.matching.rotations.turned_weights import TurnedWeights
from sinkhorn_rebasin.matching.weights.anchored_start import placed_alone, share, understood
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import identity_permutations
from tests.matching.rotations.turned_networks import Problem, problem

HEADS = "blocks/0/attention/qkv"


def turned(given: Problem, seed: int = 1) -> TurnedWeights:
    """A network beside another of its kind."""
    states = (
        tensors_of(given.network),
        tensors_of(problem("block" if HEADS in given.spec else "linear", seed).network),
    )
    return TurnedWeights(Standing(*states, given.spec, identity_permutations(given.spec)), given.continuous)


def test_heads_are_placed_by_what_they_write() -> None:
    given = problem("block")
    spec = turned(given).turning_spec
    family = [spec[HEADS], *spec.children(HEADS)]
    names = {group.name for group in family}
    kept = understood(spec, family, names, given.continuous)
    tensors = {slot.tensor for slot in kept.slots if slot.group in names}
    assert tensors == {"blocks.0.attention.out.weight"}
    # Permuted units have parts too, such as the gates of an LSTM, and are told apart by all of them.
    everything = {slot.tensor for slot in understood(spec, family, names).slots if slot.group in names}
    assert everything == {f"blocks.0.attention.{name}" for name in ("qkv.weight", "qkv.bias", "out.weight")}
    assert 0 < share(spec, family, kept) < 0.5 < share(spec, family, understood(spec, family, names)) == 1


def test_groups_are_placed_anew_after_each_by_what_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem("block")
    search = CoordinateAscent(turned(given).standing, torch.Generator().manual_seed(0))
    whole = search.standing.spec
    improved: list[str] = []

    def spy(self: CoordinateAscent, group: Any) -> bool:
        known = self.standing.spec
        left = {slot.group for slot in known.slots}
        assert known == placed_alone(whole, {name for name in whole.names if name not in left})
        improved.append(group.name)
        return False

    monkeypatch.setattr(CoordinateAscent, "_improve", spy)
    search.anchor(whole.groups, anew=True)
    stream, hidden = "positions", "blocks/0/up"
    assert improved == [stream, stream, hidden, stream, hidden, HEADS]
    assert search.standing.spec is whole
    search.anchor(whole.groups)
    assert len(improved) == 6


@pytest.mark.parametrize(("name", "starts"), [("block", [False, True]), ("linear", [False])])
def test_maps_inside_heads_are_begun_twice(
    name: str, starts: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(CoordinateAscent, "anchor", lambda self, groups, anew=False: begun.append(anew))
    turned(problem(name)).anchored(torch.Generator().manual_seed(0), 2)
    assert begun == starts


@pytest.mark.parametrize("higher", [0, 1])
def test_the_start_that_ends_higher_is_kept(higher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    climbed, ends, orders = turned(problem("block")), [1.0, 1.0], []
    ends[higher] = 2.0
    climb = climbed._climbed

    def ending(search: CoordinateAscent, *arguments: Any) -> Any:
        orders.append(search.generator.get_state())
        found = climb(search, *arguments)
        return replace(found, objective=(*found.objective, ends[len(orders) - 1]))

    monkeypatch.setattr(climbed, "_climbed", ending)
    assert climbed.anchored(torch.Generator().manual_seed(0), 1).objective[-1] == 2.0
    assert torch.equal(*orders)  # both in the same order of groups
