"""Networks are brought into one form together, and groups that cannot be are left out by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.permutations import random_maps, random_permutations, transform_state
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.symmetry import discover_continuous, discover_symmetry
from sinkhorn_rebasin.symmetry.continuous import canonical_forms as tested
from sinkhorn_rebasin.symmetry.continuous.canonical_forms import canonical_forms
from tests.symmetry.continuous.networks import images, symmetries_of_vit, vit
from tests.symmetry.witness import difference


def two_streams() -> nn.Module:
    """Two streams that turn, each behind a norm with a gain of its own."""
    layers = [nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.RMSNorm(6), nn.Linear(6, 3)]
    network = nn.Sequential(*layers).double()
    with torch.no_grad():
        for place in (1, 3):
            network[place].weight.uniform_(0.5, 2.0)
    return network


def test_a_gain_of_zero_in_one_network_leaves_its_group_out_for_both() -> None:
    torch.manual_seed(0)
    networks, inputs = (two_streams(), two_streams()), torch.randn(4, 5).double()
    networks[1][1].weight.data[2] = 0.0  # type: ignore[index, union-attr, operator]
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    spec = discover_symmetry(networks[0], inputs)
    continuous = discover_continuous(networks[0], spec, inputs)
    assert continuous.names == ["0", "2"]
    forms = canonical_forms(networks, spec, continuous, inputs)
    assert forms.continuous.names == ["2"]
    assert list(forms.left_out) == ["0"]
    assert "permutations alone for '0'" in forms.note
    assert "1 zeros" in forms.note
    assert forms.continuous.reasons["0"] == forms.left_out["0"]
    maps = random_maps(forms.continuous, generator=torch.Generator().manual_seed(0))
    orders = random_permutations(spec, generator=torch.Generator().manual_seed(0))
    for network, form, state in zip(networks, forms.networks, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
        assert torch.equal(form[3].weight, torch.ones(6).double())  # type: ignore[index]
        moved = transform_state(form.state_dict(), spec, forms.continuous, maps, orders)
        assert difference(network, moved, inputs) < 1e-12


def test_where_all_gains_fold_nothing_is_left_out() -> None:
    spec, continuous, _ = symmetries_of_vit()
    forms = canonical_forms([vit(0), vit(1)], spec, continuous, images())
    assert forms.continuous is continuous
    assert forms.note == ""


def test_what_holds_only_beside_the_group_left_out_is_left_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, inputs = two_streams(), torch.randn(4, 5).double()
    network[1].weight.data[2] = 0.0  # type: ignore[index, union-attr, operator]
    spec = discover_symmetry(network, inputs)
    continuous = discover_continuous(network, spec, inputs)

    def refuse(model: nn.Module, spec: object, continuous: ContinuousSpec, inputs: object) -> float:
        raise SymmetryError("it changes the output", groups=continuous.names)

    monkeypatch.setattr(tested, "verify_continuous", refuse)
    forms = canonical_forms([network], spec, continuous, inputs)
    assert forms.networks[0] is network
    assert not forms.continuous
    assert list(forms.left_out) == ["0", "2"]


def test_an_error_that_names_no_group_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, continuous, _ = symmetries_of_vit()

    def refuse(*args: object, **options: object) -> nn.Module:
        raise SymmetryError("nobody is to blame")

    monkeypatch.setattr(tested, "canonicalize", refuse)
    with pytest.raises(SymmetryError, match="nobody"):
        canonical_forms([vit()], spec, continuous, images())
