"""A pair is brought into the form its maps act on, or keeps its permutations and says why."""

from __future__ import annotations

import copy

import pytest
import torch

from sinkhorn_rebasin import discover_symmetry
from sinkhorn_rebasin.errors import SpecError, SymmetryError
from sinkhorn_rebasin.front.canonical_pair import canonical_pair
from sinkhorn_rebasin.matching.rotations.canonical_form import check_canonical
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS
from sinkhorn_rebasin.symmetry import discover_continuous
from tests.front.pairs import untrained
from tests.rebasin.turned_problems import WORDS, inputs_of, pair, raw
from tests.symmetry.continuous.networks import gpt
from tests.symmetry.witness import difference


def test_both_networks_are_canonical_compute_the_same_and_are_told_of() -> None:
    given, networks = pair("layer norm"), [raw("layer norm", seed) for seed in (0, 1)]
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    *forms, continuous, told = canonical_pair(*networks, given.spec, "full", given.inputs)
    assert continuous.symmetries == given.continuous.symmetries
    for network, form, state in zip(networks, forms, before, strict=True):
        assert type(form) is type(network)
        check_canonical(form.state_dict(), continuous, "reference")
        assert difference(network, form.state_dict(), given.inputs) < 1e-12
        assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert [line.split(" maps of ")[0] for line in told] == ["orthogonal", "linear"]
    assert "positions" in told[0]


@pytest.mark.parametrize("symmetry", ["permutation", NO_CONTINUOUS])
def test_permutations_alone_leave_the_networks_themselves(symmetry: object) -> None:
    networks, inputs = (untrained(0), untrained(1)), torch.randn(3, 2)
    spec = discover_symmetry(networks[0], inputs)
    first, second, continuous, told = canonical_pair(*networks, spec, symmetry, inputs)  # type: ignore[arg-type]
    assert (first, second) == networks
    assert not continuous
    assert told == ()


def test_without_inputs_it_says_so() -> None:
    given = pair("layer norm")
    first, _, continuous, told = canonical_pair(given.reference, given.target, given.spec, "full", None)
    assert first is given.reference
    assert not continuous
    assert "no example inputs" in told[0]


def test_only_the_group_whose_gain_cannot_be_folded_keeps_its_permutations() -> None:
    network, inputs = gpt(), WORDS % 7
    spec = discover_symmetry(network, inputs)
    everything = discover_continuous(network, spec, inputs)
    first, second, continuous, told = canonical_pair(network, gpt(), spec, "full", inputs)
    assert set(continuous.names) == set(everything.names) - {"words"} != set()
    for form in (first, second):
        assert difference(network, form.state_dict(), inputs) < 1e-12
    assert told[-1].startswith("permutations alone for 'words': Expected a rescaling of group 'words'")
    assert "norm.weight" in told[-1]
    with pytest.raises(SymmetryError, match=r"norm\.weight"):
        canonical_pair(network, network, spec, everything, inputs)


def test_an_unknown_name_is_refused() -> None:
    given = pair("bottleneck")
    with pytest.raises(SpecError, match="but got 'everything'"):
        canonical_pair(
            given.reference,
            given.target,
            given.spec,
            "everything",  # type: ignore[arg-type]
            inputs_of("bottleneck"),
        )
