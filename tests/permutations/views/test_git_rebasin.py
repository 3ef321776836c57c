from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sinkhorn_rebasin.errors import SpecError, SymmetryError
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry, verify_symmetry
from tests.permutations.specs import FLATTENED, LISTED, NESTED, PART, SEVERAL_AXES, WHOLE

NORM = ("weight", "bias", "running_mean", "running_var")


def mlp() -> tuple[nn.Module, torch.Tensor, dict[str, tuple[str | None, ...]]]:
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    by_hand: dict[str, tuple[str | None, ...]] = {
        "0.weight": ("P_0", None),
        "0.bias": ("P_0",),
        "2.weight": ("P_1", "P_0"),
        "2.bias": ("P_1",),
        "4.weight": (None, "P_1"),
        "4.bias": (None,),
    }
    return net, torch.randn(4, 3), by_hand


def cnn() -> tuple[nn.Module, torch.Tensor, dict[str, tuple[str | None, ...]]]:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )
    by_hand: dict[str, tuple[str | None, ...]] = {
        "0.weight": ("P_0", None, None, None),
        "0.bias": ("P_0",),
        **{f"1.{name}": ("P_0",) for name in NORM},
        "3.weight": ("P_1", "P_0", None, None),
        "3.bias": ("P_1",),
        "6.weight": (None, "P_1"),
        "6.bias": (None,),
    }
    return net, torch.randn(2, 1, 9, 9), by_hand


def renamed(spec: PermutationSpec, by_hand: PermutationSpec) -> PermutationSpec:
    """A spec with the group names of another, matched by the first slot of each."""
    names = {
        spec.slots_on(s.tensor)[0].group: s.group
        for s in by_hand.slots
        if len(by_hand.slots_on(s.tensor)) == 1
    }
    groups = [replace(group, name=names[group.name]) for group in spec.groups]
    slots = [replace(slot, group=names[slot.group]) for slot in spec.slots]
    return replace(spec, groups=tuple(sorted(groups, key=lambda g: g.name)), slots=tuple(slots))


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("from_state", [False, True])
def test_what_is_written_by_hand_is_what_discovery_finds(make, from_state: bool) -> None:
    torch.manual_seed(0)
    net, inputs, by_hand = make()
    spec = PermutationSpec.from_axes_to_perm(by_hand, net.state_dict() if from_state else net)
    found = renamed(discover_symmetry(net, inputs), spec)
    assert spec.groups == found.groups
    assert set(spec.slots) == set(found.slots)
    assert len(spec.slots) == len(found.slots)
    assert spec.shapes == found.shapes
    assert spec.buffers == found.buffers
    assert {(f.tensor, f.axis) for f in spec.frozen} == {(f.tensor, f.axis) for f in found.frozen}
    assert spec.fingerprint == found.fingerprint
    assert verify_symmetry(net, spec, inputs) < 1e-12
    assert spec.to_axes_to_perm() == found.to_axes_to_perm() == by_hand


def test_a_mistake_by_hand_is_noticed_by_verification() -> None:
    net, inputs, by_hand = mlp()
    wrong = PermutationSpec.from_axes_to_perm({**by_hand, "2.bias": (None,)}, net)
    with pytest.raises(SymmetryError, match="'P_1'"):
        verify_symmetry(net, wrong, inputs)


def test_tensors_that_are_not_named_stay_and_are_told() -> None:
    net, inputs, by_hand = mlp()
    fewer = {name: by_hand[name] for name in ("0.weight", "0.bias")} | {"2.weight": (None, "P_0")}
    spec = PermutationSpec.from_axes_to_perm(fewer, net)
    assert spec.names == ["P_0"]
    assert {f.reason for f in spec.frozen if f.tensor == "4.weight"} == {
        "axes_to_perm does not name the tensor"
    }
    assert {f.axis for f in spec.frozen if f.tensor == "2.weight"} == {0}
    assert verify_symmetry(net, spec, inputs) < 1e-12


def test_a_permutation_may_be_on_both_axes() -> None:
    net = nn.Linear(3, 3)
    spec = PermutationSpec.from_axes_to_perm({"weight": ("P", "P"), "bias": ["P"]}, net)
    assert [(s.tensor, s.axes) for s in spec.slots] == [("weight", (0,)), ("weight", (1,)), ("bias", (0,))]
    assert spec.to_axes_to_perm() == {"weight": ("P", "P"), "bias": ("P",)}


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    return net


def test_tied_names_move_together() -> None:
    spec = PermutationSpec.from_axes_to_perm({"0.weight": ("P", None), "0.bias": ("P",)}, tied())
    assert [slot.tensor for slot in spec.slots] == ["0.weight", "0.bias", "2.weight"]


@pytest.mark.parametrize(
    ("by_hand", "message"),
    [
        ({"9.weight": ("P", None)}, r"'9.weight' \('P', None\); it has 0.weight, 0.bias"),
        ({"0.weight": ("P",)}, r"each axis of tensor '0.weight' of shape \(8, 3\) but got \('P',\)"),
        ({"0.weight": "PQ"}, "'0.weight'.*but got 'PQ'"),
        (
            {"0.weight": ("P", None), "2.weight": ("P", None)},
            "'P' to have 8 units, as on axis 0 of tensor '0.weight', but got 6 on axis 0 of tensor '2.weight'",
        ),
        ({"0.weight": ("P", "P")}, "axis 0 of tensor '0.weight', but got 3 on axis 1 of tensor '0.weight'"),
    ],
)
def test_what_does_not_fit_is_told(by_hand, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        PermutationSpec.from_axes_to_perm(by_hand, mlp()[0])


def test_tied_names_that_disagree_are_told() -> None:
    with pytest.raises(SpecError, match=r"'0\.weight' and '2\.weight'"):
        PermutationSpec.from_axes_to_perm({"0.weight": ("P", None), "2.weight": (None, "P")}, tied())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (NESTED.without("heads", "cell"), "'inner' on axes .* of tensor 'w' in 2 blocks"),
        (NESTED.without("heads"), "'inner'.* in 2 blocks"),
        (NESTED, "'heads' on axes .* of tensor 'w' with 6 positions"),
        (FLATTENED, "'a' on axes .* of tensor 'w' with 4 positions"),
        (PART, "'a' on axes .* of tensor 'w' on 3 of 8 positions"),
        (LISTED, "'w' with 2 positions"),
        (SEVERAL_AXES, r"axes \(0, 2\) of tensor 'w' over several axes"),
    ],
)
def test_what_the_dictionary_cannot_say_is_told(spec: PermutationSpec, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("axes .*", r"axes \(\d,\)")):
        spec.to_axes_to_perm()


def test_by_hand() -> None:
    assert WHOLE.to_axes_to_perm() == {
        "in": ("a", None),
        "out": (None, "a"),
        "kernel": (None, "a", None),
        "free": (None,),
    }
