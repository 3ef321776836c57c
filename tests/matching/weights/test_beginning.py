"""Matching goes on from an alignment with its signs and maps, and refuses one of other symmetries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from sinkhorn_rebasin import activation_matching, discover_rescaling, discover_symmetry, weight_matching
from sinkhorn_rebasin.errors import RebasinWarning, SpecError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.rotations.turned_weights import TurnedWeights
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Group, RescalingSpec, identity_permutations, random_permutations
from sinkhorn_rebasin.permutations.random_maps import random_maps
from tests.matching.rotations.turned_networks import (
    change_of_function,
    largest_difference,
    problem,
)

NAMES = ["orthogonal", "linear", "bottlenecks", "rotary", "vit"]


def planted(name: str) -> tuple[Alignment, dict[str, torch.Tensor]]:
    """The alignment that carries a network moved at random back to where it was, and that network."""
    given = problem(name)
    generator = torch.Generator().manual_seed(3)
    there = Alignment(
        random_permutations(given.spec, generator=generator),
        given.spec,
        maps=random_maps(given.continuous, generator=generator),
        continuous=given.continuous,
    )
    return there.invert(), there.apply(given.network)


@pytest.mark.parametrize("name", NAMES)
def test_an_alignment_is_carried_to_the_balanced_networks_and_back(name: str) -> None:
    given, (back, target) = problem(name), planted(name)
    state = {key: tensor.detach() for key, tensor in given.network.state_dict().items()}
    turned = TurnedWeights(Standing(state, target, given.spec, {}), given.continuous)
    there = turned.as_balanced(back)
    maps = turned.as_given(there)
    assert set(maps) == set(back.maps)
    moved = replace(back, maps=maps).apply(target)
    assert largest_difference(state, moved) < 1e-8
    for symmetry in given.continuous.symmetries:
        rotation = there[symmetry.group.name]
        eye = torch.eye(symmetry.group.size, dtype=torch.float64).expand_as(rotation)
        torch.testing.assert_close(rotation @ rotation.mT, eye, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_pass_from_what_was_found_is_worth_as_much(name: str) -> None:
    given, other = problem(name, 0), problem(name, 1)
    found = weight_matching(given.network, other.network, given.spec, symmetry=given.continuous)
    again = weight_matching(
        *(given.network, other.network, given.spec), symmetry=given.continuous, start=found, max_passes=1
    )
    assert again.objective[0] >= found.objective[-1] * (1 - 1e-9)
    assert change_of_function(given, other.network.state_dict(), again.apply(other.network)) < 1e-9
    from_identity = weight_matching(
        *(given.network, other.network, given.spec), symmetry=given.continuous, start="identity", max_passes=1
    )
    assert name in ("rotary", "bottlenecks") or again.objective[0] > 1.0001 * from_identity.objective[0]


def test_signs_that_were_found_are_gone_on_from() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 4)).double() for _ in range(2)]
    inputs = torch.randn(4, 5).double()
    spec = discover_symmetry(nets[0], inputs)
    rescaling = discover_rescaling(nets[0], spec, inputs)
    found = weight_matching(*nets, spec, rescaling=rescaling)
    assert bool((found.signs["0"] < 0).any())
    again = weight_matching(*nets, spec, rescaling=rescaling, start=found, max_passes=1)
    assert again.objective[0] == pytest.approx(found.objective[-1])
    assert torch.equal(again.signs["0"], found.signs["0"])
    assert torch.equal(again.permutations["0"], found.permutations["0"])
    with pytest.raises(SpecError, match=r"'0' do not: pass rescaling=alignment\.rescaling"):
        weight_matching(*nets, spec, start=found)


def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What every search climbs from; none may look for a start of its own."""
    begins, climb = [], CoordinateAscent.climb

    def climbing(self: CoordinateAscent, groups: Sequence[Group], most: int) -> Alignment:
        begins.append(dict(self.standing.permutations))
        return climb(self, groups, most)

    monkeypatch.setattr(CoordinateAscent, "climb", climbing)
    monkeypatch.delattr(CoordinateAscent, "guess")
    monkeypatch.delattr(CoordinateAscent, "anchor")
    return begins


@pytest.mark.filterwarnings("ignore:Expected to see the units")
def test_what_activations_do_not_show_begins_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    begins = begun(monkeypatch)
    given, (back, target) = problem("vit"), planted("vit")
    network, inputs = problem("vit", 1).network, given.inputs
    network.load_state_dict(target)
    found = activation_matching(
        given.network, network, given.spec, data=[inputs], symmetry=given.continuous, start=back
    )
    assert largest_difference(given.network.state_dict(), found.apply(network)) < 1e-7
    assert found.weight_matched
    state = {key: tensor.detach() for key, tensor in given.network.state_dict().items()}
    there = TurnedWeights(Standing(state, target, given.spec, {}), given.continuous).as_balanced(back)
    for name in found.weight_matched:
        torch.testing.assert_close(begins[0][name], there[name])


def test_groups_that_no_layer_shows_begin_as_given_without_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hidden(nn.Module):
        """Units of bare parameters that a product of two of them sums over."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Parameter(torch.randn(4, 7)), nn.Parameter(torch.randn(7, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.inner @ self.outer)

    torch.manual_seed(0)
    nets, inputs = [Hidden(), Hidden()], torch.randn(6, 4)
    spec = discover_symmetry(nets[0], inputs)
    order = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    begins = begun(monkeypatch)
    with pytest.warns(RebasinWarning, match="matched by their weights"):
        activation_matching(*nets, spec, data=[inputs], start=order)
    assert torch.equal(begins[0]["inner"], order["inner"])


def test_what_cannot_be_gone_on_from_is_refused() -> None:
    given, (back, target) = problem("linear"), planted("linear")
    networks = given.network, target
    with pytest.raises(SpecError, match=r"symmetry=alignment\.continuous"):
        weight_matching(*networks, given.spec, start=back)
    with pytest.raises(SpecError, match="of another"):
        weight_matching(*networks, given.spec, start=Alignment({}, problem("rotary").spec))
    scaled = Alignment(
        identity_permutations(given.spec),
        given.spec,
        rescaling=RescalingSpec(("stem",)),
        log_scales={"stem": torch.zeros(1, 6)},
    )
    with pytest.raises(SpecError, match="without scales"):
        weight_matching(*networks, given.spec, start=scaled)
    with pytest.raises(
        SpecError,
        match="'invariants', 'identity', 'gates', 'grams', permutations or an Alignment but got 'best'",
    ):
        weight_matching(*networks, given.spec, start="best")  # type: ignore[arg-type]
