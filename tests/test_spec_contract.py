"""One contract for everything that takes symmetries: what is none is refused, and told how to make one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import sinkhorn_rebasin as sr
from sinkhorn_rebasin.connectivity.geodesic import GeodesicPath
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.landscape import local_energy
from sinkhorn_rebasin.merging.many_alignment import ManyAlignment
from sinkhorn_rebasin.merging.match_outputs import match_outputs
from sinkhorn_rebasin.merging.pairwise_barriers import pairwise_barriers
from sinkhorn_rebasin.metrics import unit_similarity
from sinkhorn_rebasin.permutations import (
    compose,
    identity_maps,
    inverse,
    normalize_state_scales,
    permute_masks,
    random_maps,
    transform_state,
)
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from tests.data_takers import networks
from tests.test_network_contract import DATA, PAIRS, X

A, B, SPEC = networks()
STATE = A.state_dict()
STAY = sr.identity_permutations(SPEC)
JUDGE = torch.nn.functional.cross_entropy

SPECS: dict[str, Callable[[Any], Any]] = {
    **{name: partial(take, A, B) for name, take in PAIRS.items()},
    "permute_state": lambda spec: sr.permute_state(STATE, spec, STAY),
    "identity_permutations": sr.identity_permutations,
    "random_permutations": sr.random_permutations,
    "verify_symmetry": lambda spec: sr.verify_symmetry(A, spec, X),
    "discover_rescaling": lambda spec: sr.discover_rescaling(A, spec, X),
    "discover_continuous": lambda spec: sr.discover_continuous(A, spec, X),
    "match_many": lambda spec: sr.match_many([A, B], spec),
    "zipit": lambda spec: sr.zipit(A, B, spec=spec, data=DATA),
    "pleas": lambda spec: sr.pleas(A, B, spec, data=DATA),
    "merge_trunks": lambda spec: sr.merge_trunks(A, B, spec, sr.Alignment(STAY, SPEC), data=DATA),
    "match_outputs": lambda spec: match_outputs(A, B, spec, data=DATA),
    "pairwise_barriers": lambda spec: pairwise_barriers([A, B], spec, DATA, JUDGE),
    "unit_similarity": lambda spec: unit_similarity(A, B, spec, [X]),
    "canonicalize": lambda spec: sr.canonicalize(A, spec, NO_CONTINUOUS, X),
    "verify_continuous": lambda spec: sr.verify_continuous(A, spec, NO_CONTINUOUS, X),
    "transform_state": lambda spec: transform_state(STATE, spec, NO_CONTINUOUS, {}, STAY),
    "rescale_state": lambda spec: sr.rescale_state(STATE, spec, NO_RESCALING),
    "normalize_scales": lambda spec: sr.normalize_scales(A, spec, NO_RESCALING),
    "normalize_state_scales": lambda spec: normalize_state_scales(STATE, spec, NO_RESCALING),
    "widen_into, the spec": lambda spec: sr.widen_into(A, A, spec, SPEC, X),
    "widen_into, the wider": lambda spec: sr.widen_into(A, A, SPEC, spec, X),
    "GeodesicPath": lambda spec: GeodesicPath(A, STATE, STATE, spec, NO_RESCALING),
    "GeodesicPath.between": lambda spec: GeodesicPath.between(A, B, spec, example_inputs=X),
    "local_energy": lambda spec: local_energy(A, DATA, spec=spec, rescaling=NO_RESCALING),
    "compose": lambda spec: compose(spec, STAY, STAY),
    "inverse": lambda spec: inverse(spec, STAY),
    "permute_masks": lambda spec: permute_masks({}, spec, STAY),
    "RescalingSpec.shapes": NO_RESCALING.shapes,
    "Alignment": lambda spec: sr.Alignment(STAY, spec),
    "JointRebasin": lambda spec: sr.JointRebasin([A, B], spec=spec),
    "align_many": lambda spec: sr.align_many([A, B], spec=spec),
}
for without in ("evaluate_path", "LinearPath.between"):
    del SPECS[without]
# Without a spec these discover one, or say that they have no inputs to do it with.
OPTIONAL = ("SinkhornRebasin", "align", "local_energy", "JointRebasin", "align_many")

RESCALINGS: dict[str, Callable[[Any], Any]] = {
    "weight_matching": lambda scales: sr.weight_matching(A, B, SPEC, rescaling=scales),
    "activation_matching": lambda scales: sr.activation_matching(A, B, SPEC, data=DATA, rescaling=scales),
    "rescale_state": lambda scales: sr.rescale_state(STATE, SPEC, scales),
    "normalize_scales": lambda scales: sr.normalize_scales(A, SPEC, scales),
    "normalize_state_scales": lambda scales: normalize_state_scales(STATE, SPEC, scales),
    "canonicalize": lambda scales: sr.canonicalize(A, SPEC, NO_CONTINUOUS, X, rescaling=scales),
    "discover_continuous": lambda scales: sr.discover_continuous(A, SPEC, X, rescaling=scales),
    "widen_into": lambda scales: sr.widen_into(A, A, SPEC, SPEC, X, rescaling=scales),
    "GeodesicPath": lambda scales: GeodesicPath(A, STATE, STATE, SPEC, scales),
    "GeodesicPath.between": lambda scales: GeodesicPath.between(A, B, SPEC, scales),
    "local_energy": lambda scales: local_energy(A, DATA, spec=SPEC, rescaling=scales),
    "Alignment": lambda scales: sr.Alignment(STAY, SPEC, rescaling=scales),
    "SinkhornRebasin": lambda scales: sr.SinkhornRebasin(A, B, spec=SPEC, rescale=scales),
    "JointRebasin": lambda scales: sr.JointRebasin([A, B], spec=SPEC, rescale=scales),
    "align": lambda scales: sr.align(A, B, example_inputs=X, rescale=scales),
}

CONTINUOUS: dict[str, Callable[[Any], Any]] = {
    "weight_matching": lambda maps: sr.weight_matching(A, B, SPEC, symmetry=maps),
    "activation_matching": lambda maps: sr.activation_matching(A, B, SPEC, data=DATA, symmetry=maps),
    "canonicalize": lambda maps: sr.canonicalize(A, SPEC, maps, X),
    "verify_continuous": lambda maps: sr.verify_continuous(A, SPEC, maps, X),
    "transform_state": lambda maps: transform_state(STATE, SPEC, maps, {}, STAY),
    "identity_maps": identity_maps,
    "random_maps": random_maps,
    "widen_into": lambda maps: sr.widen_into(A, A, SPEC, SPEC, X, continuous=maps),
    "Alignment": lambda maps: sr.Alignment(STAY, SPEC, continuous=maps),
}


def kind(value: object) -> str:
    """The name of a case, without an address in memory."""
    return type(value).__name__


NO_SPECS = ({"a.weight": ("P", None)}, "spec.json", X, NO_RESCALING, None)
CASES = [(name, nonsense) for name in SPECS for nonsense in NO_SPECS]
CASES = [(name, nonsense) for name, nonsense in CASES if nonsense is not None or name not in OPTIONAL]


@pytest.mark.parametrize(("name", "nonsense"), CASES, ids=[f"{name}-{kind(each)}" for name, each in CASES])
def test_what_is_no_spec_is_refused_with_how_to_make_one(nonsense: Any, name: str) -> None:
    with pytest.raises(SpecError, match=r"Expected a PermutationSpec but got .* make one with discover_sym"):
        SPECS[name](nonsense)


@pytest.mark.parametrize("name", RESCALINGS)
@pytest.mark.parametrize("nonsense", [{"a": 1}, "all", X, SPEC], ids=kind)
def test_what_is_no_rescaling_is_refused_with_how_to_find_one(nonsense: Any, name: str) -> None:
    with pytest.raises(SpecError, match=r"Expected a RescalingSpec but got .* with discover_rescaling"):
        RESCALINGS[name](nonsense)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("nonsense", [{"a": 1}, "full", X, SPEC], ids=kind)
def test_what_is_no_continuous_symmetry_is_refused_with_how_to_find_one(nonsense: Any, name: str) -> None:
    with pytest.raises(SpecError, match=r"Expected a ContinuousSpec but got .* with discover_continuous"):
        CONTINUOUS[name](nonsense)


@pytest.mark.parametrize("nonsense", [None, 3, [1, 2], [None, None]], ids=str)
def test_what_is_no_alignment_of_many_is_refused(nonsense: Any) -> None:
    for take in (
        lambda: sr.merge_many([A, B], nonsense),
        lambda: ManyAlignment(nonsense if not isinstance(nonsense, list) else tuple(nonsense)),
    ):
        with pytest.raises(
            ArchitectureError, match=r"Expected .*alignments.* with match_many\(networks, spec\)"
        ):
            take()


def test_energies_of_normalised_networks_take_both_symmetries() -> None:
    for half in ({"spec": SPEC}, {"rescaling": NO_RESCALING}):
        with pytest.raises(SpecError, match="a spec and its rescalings, to normalise the network with"):
            local_energy(A, DATA, **half)


@pytest.mark.parametrize("nonsense", [[0, 1], None, X], ids=kind)
def test_permutations_without_names_are_refused(nonsense: Any) -> None:
    for take in (
        lambda: sr.permute_state(STATE, SPEC, nonsense),
        lambda: compose(SPEC, nonsense, STAY),
        lambda: inverse(SPEC, nonsense),
    ):
        with pytest.raises(SpecError, match="Expected permutations, group names to indices or matrices, but"):
            take()


@pytest.mark.parametrize("nonsense", [[1], None, torch.nn.Linear], ids=str)
def test_specs_by_hand_are_read_with_a_network_or_a_state(nonsense: Any) -> None:
    with pytest.raises(SpecError, match="Expected a network, or a state, tensor names to tensors, but got"):
        sr.PermutationSpec.from_axes_to_perm({"a.weight": ("P", None)}, nonsense)
