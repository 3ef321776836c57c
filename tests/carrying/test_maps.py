from __future__ import annotations

import pytest
import torch

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.errors import SpecError
from tests.carrying.networks import at, farthest, tuned_from
from tests.matching.rotations.turned_networks import moved_at_random, problem


@pytest.mark.parametrize("name", ["orthogonal", "linear", "vit"])
def test_a_copy_turned_at_random_gets_the_whole_update(name: str) -> None:
    given = problem(name)
    base = given.network
    tuned = tuned_from(base, size=0.05)
    with torch.no_grad():
        for symmetry in given.continuous.symmetries:
            for gain in symmetry.gains:
                tuned.get_parameter(gain).fill_(1.0)
    new_base = at(base, moved_at_random(given))
    alignment = sr.weight_matching(new_base, base, given.spec, symmetry=given.continuous)
    update = sr.carry(tuned, base, new_base, alignment, scale=1.0, example_inputs=given.inputs)
    applied = update.apply(new_base)
    inputs = torch.randn_like(given.inputs)
    assert float((new_base(inputs) - tuned(inputs)).detach().abs().max()) > 1e-3
    assert torch.allclose(applied(inputs), tuned(inputs), atol=1e-6)
    back = sr.carry(applied, new_base, base, alignment.invert(), scale=1.0, example_inputs=given.inputs)
    theirs = {n: p.detach() - base.get_parameter(n).detach() for n, p in tuned.named_parameters()}
    assert farthest(back.state, theirs) < 1e-6


def test_gains_of_all_three_are_folded_and_the_function_at_scale_zero_stays() -> None:
    given, other = problem("block"), problem("block", 1)
    networks = [tuned_from(given.network, size=0.05), given.network, other.network]
    with torch.no_grad():
        for number, network in enumerate(networks):
            network.get_parameter("norm.weight").mul_(1.2 + 0.1 * number)
    alignment = sr.weight_matching(
        *(
            sr.canonicalize(net, given.spec, given.continuous, given.inputs)
            for net in (networks[2], networks[1])
        ),
        given.spec,
        symmetry=given.continuous,
    )
    update = sr.carry(*networks, alignment, scale=1.0, example_inputs=given.inputs)
    assert update.frame
    inputs = torch.randn_like(given.inputs)
    small = update.apply(networks[2], 1e-9)
    assert type(small) is type(networks[2])
    assert torch.allclose(small(inputs), networks[2](inputs), atol=1e-6)
    assert torch.equal(update.apply(networks[2], 0.0)(inputs), networks[2](inputs))
    whole = update.apply(networks[2])(inputs)
    assert float((whole - networks[2](inputs)).detach().abs().max()) > 1e-3


def test_masks_and_squares_are_refused_where_maps_mix_weights() -> None:
    given = problem("orthogonal")
    alignment = sr.weight_matching(given.network, given.network, given.spec, symmetry=given.continuous)
    mask = {"stem.weight": torch.ones(6, 5, dtype=torch.bool)}
    with pytest.raises(SpecError, match=r"permutations for a mask, .*\['stem'\] are turned"):
        alignment.carry(mask, "mask")
