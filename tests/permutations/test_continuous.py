"""Continuous symmetries act on tensors as written by hand, and their elements are what they say."""

from __future__ import annotations

import pytest
import torch

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations import (
    Group,
    Layout,
    PermutationSpec,
    Slot,
    identity_maps,
    random_maps,
    random_permutations,
)
from sinkhorn_rebasin.permutations.continuous import (
    ContinuousKind,
    ContinuousSpec,
    ContinuousSymmetry,
    transform_state,
)
from tests.symmetry.continuous.networks import HEADS, WIDTH, images, symmetries_of_vit, vit
from tests.symmetry.witness import difference

LINE = Layout(1, 3)
SPEC = PermutationSpec(
    groups=(Group("a", 3),),
    slots=(Slot("a", "in", (0,), LINE), Slot("a", "out", (1,), LINE), Slot("a", "again", (1,), LINE)),
    shapes={"in": (3, 2), "out": (4, 3), "again": (4, 3)},
    tied=(("out", "again"),),
)
LINEAR = ContinuousSpec(
    (ContinuousSymmetry(Group("a", 3), "linear", ((SPEC.slots[0], 1), (SPEC.slots[1], -1))),)
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_slots_move_by_the_map_or_its_inverse_transpose_under_every_tied_name() -> None:
    torch.manual_seed(0)
    state = {"in": torch.randn(3, 2).double(), "out": torch.randn(4, 3).double()}
    state["again"] = state["out"]
    maps = random_maps(LINEAR, generator=generator())
    moved = transform_state(state, SPEC, LINEAR, maps, {})
    torch.testing.assert_close(moved["in"], maps["a"] @ state["in"])
    for name in ("out", "again"):
        torch.testing.assert_close(moved[name], state["out"] @ torch.linalg.inv(maps["a"]))


def test_half_precision_is_rounded_once() -> None:
    torch.manual_seed(0)
    state = {"in": torch.randn(3, 2).half(), "out": torch.randn(4, 3).half()}
    maps = random_maps(LINEAR, generator=generator(), dtype=torch.float16)
    moved = transform_state(state, SPEC, LINEAR, maps, {})
    assert moved["in"].dtype == torch.float32
    torch.testing.assert_close(moved["in"], maps["a"].float() @ state["in"].float())
    torch.testing.assert_close(moved["out"], state["out"].float() @ torch.linalg.inv(maps["a"].float()))


@pytest.mark.parametrize("fixes_ones", [False, True])
def test_random_orthogonal_maps_are_orthogonal_and_keep_the_ones_only_if_told(fixes_ones: bool) -> None:
    symmetry = ContinuousSymmetry(Group("a", 4, 3), "orthogonal", (), fixes_ones)
    maps = random_maps(ContinuousSpec((symmetry,)), generator=generator())["a"]
    assert maps.shape == (3, 4, 4)
    torch.testing.assert_close(maps @ maps.mT, torch.eye(4).double().expand(3, 4, 4))
    assert torch.allclose(maps.sum(-1), torch.ones(3, 4).double()) == fixes_ones
    assert (maps[0] - maps[1]).abs().max() > 0.1


def test_random_rotary_maps_commute_with_turning_the_pairs() -> None:
    symmetry = ContinuousSymmetry(Group("a", 4), "rotary", (), pairs=((0, 2), (1, 3)))
    matrix = random_maps(ContinuousSpec((symmetry,)), generator=generator())["a"]
    turn = torch.zeros(4, 4, dtype=torch.float64)
    for first, second, angle in ((0, 2, 1.0), (1, 3, 0.2)):
        cosine, sine = torch.tensor(angle).cos(), torch.tensor(angle).sin()
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
    torch.testing.assert_close(turn @ matrix, matrix @ turn)
    assert (matrix - torch.diag(matrix.diagonal())).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["orthogonal", "linear"])
def test_identity_maps_change_nothing(kind: ContinuousKind) -> None:
    symmetry = ContinuousSymmetry(Group("a", 3), kind, LINEAR.symmetries[0].exponents)
    continuous = ContinuousSpec((symmetry,))
    state = {"in": torch.randn(3, 2).double(), "out": torch.randn(4, 3).double()}
    moved = transform_state(state, SPEC, continuous, identity_maps(continuous), {})
    assert all(torch.equal(moved[name], tensor) for name, tensor in state.items())


def test_maps_of_exactly_the_groups_are_expected() -> None:
    state = {"in": torch.randn(3, 2), "out": torch.randn(4, 3)}
    with pytest.raises(SpecError, match="maps of exactly the groups a but got b"):
        transform_state(state, SPEC, LINEAR, {"b": torch.eye(3)}, {})


def test_a_transformer_with_gains_of_one_turns_with_its_heads_mixed_and_moved() -> None:
    model = vit()
    spec, continuous, _ = symmetries_of_vit()
    with torch.no_grad():
        for gain in continuous["positions"].gains:
            model.get_parameter(gain).fill_(1)
    maps = random_maps(continuous, generator=generator())
    orders = random_permutations(spec, generator=generator())
    assert orders["blocks/0/attention/qkv"].tolist() != list(range(HEADS))
    moved = transform_state(model.state_dict(), spec, continuous, maps, orders)
    assert difference(model, moved, images(7)) < 1e-13
    out = model.state_dict()["blocks.0.down.weight"]
    torch.testing.assert_close(
        moved["blocks.0.down.weight"], maps["positions"] @ out[:, orders["blocks/0/up"]]
    )
    assert moved["positions"].shape == (4, WIDTH)
