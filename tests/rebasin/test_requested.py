"""Rescalings beside maps: those of groups that have none, whether or not the others' flips are looked for."""

from __future__ import annotations

from typing import Any

import pytest

from sinkhorn_rebasin.rebasin.requested import beside_maps, rescaling_beside
from sinkhorn_rebasin.symmetry import discover_rescaling
from sinkhorn_rebasin.symmetry.rescaling import discovery
from tests.matching.rotations.turned_networks import problem


@pytest.mark.parametrize("name", ["tanh", "orthogonal", "linear"])
def test_rescalings_beside_maps_are_those_of_the_whole_search(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = problem(name)
    whole = discover_rescaling(given.network, given.spec, given.inputs)
    asked: list[str] = []
    search = discovery.sign_candidates

    def noted(spec: Any, group: str, *others: Any) -> Any:
        asked.append(group)
        return search(spec, group, *others)

    monkeypatch.setattr(discovery, "sign_candidates", noted)
    found = rescaling_beside(given.network, given.spec, True, given.inputs, given.continuous)
    assert set(found.generators) == set(beside_maps(whole, given.continuous).generators)
    assert found.generators
    assert not set(asked) & set(given.continuous.names)
    assert set(asked) == {group.name for group in given.spec.groups} - set(given.continuous.names)


def test_heads_whose_units_have_maps_keep_no_flips_that_those_hold() -> None:
    given = problem("block")
    assert not rescaling_beside(given.network, given.spec, True, given.inputs, given.continuous).generators
