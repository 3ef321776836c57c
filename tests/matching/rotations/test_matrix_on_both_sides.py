"""Streams that are turned on both sides of one matrix, such as one between a norm and a head that is an embedding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.matching import weight_matching
from sinkhorn_rebasin.matching.rotations.turned_weights import without_identity
from sinkhorn_rebasin.matching.weights.coordinate_ascent import CoordinateAscent
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry

GROUP, EYE = Group("stream", 6), torch.eye(6, dtype=torch.float64)
SLOTS = tuple(
    Slot("stream", tensor, (axis,), Layout(1, 6)) for tensor, axis in (("m", 0), ("m", 1), ("table", 0))
)
SPEC = PermutationSpec((GROUP,), SLOTS, {"m": (6, 6), "table": (6, 7)})
CONTINUOUS = ContinuousSpec((ContinuousSymmetry(GROUP, "orthogonal", tuple((slot, 1) for slot in SLOTS)),))


def planted(identity: float = 0.0) -> tuple[State, State, Tensor, Tensor]:
    """A reference, the same turned, the map back, and noise of the shape of the table."""
    generator = torch.Generator().manual_seed(0)
    matrix, table, noise, any_map = (
        torch.randn(6, columns, dtype=torch.float64, generator=generator) for columns in (6, 7, 7, 6)
    )
    rotation = torch.linalg.qr(any_map).Q
    reference = {"m": matrix + matrix.T + identity * EYE, "table": table}
    target = {"m": rotation.T @ reference["m"] @ rotation, "table": rotation.T @ table}
    return reference, target, rotation, noise


def test_a_multiple_of_the_identity_does_not_hold_a_rotation_back() -> None:
    """It changes nothing of what is found, though the table tells only roughly where to begin."""
    maps = []
    for identity in (0.0, 300.0):
        reference, target, _, noise = planted(identity)
        reference["table"], target["table"] = 1e-4 * reference["table"], 1e-4 * (target["table"] + noise)
        found = weight_matching(reference, target, SPEC, symmetry=CONTINUOUS)
        moved = found.apply(target)
        product = sum(float((reference[name] * moved[name]).sum()) for name in reference)
        assert found.objective[-1] == pytest.approx(product, rel=1e-12)
        maps.append(found.maps["stream"])
    torch.testing.assert_close(*maps, atol=1e-6, rtol=0)


def test_only_matrices_turned_on_both_sides_lose_their_multiple() -> None:
    reference = planted(identity=2.0)[0]
    state, multiples = without_identity(reference, CONTINUOUS)
    assert state["table"] is reference["table"]
    assert multiples == {"m": pytest.approx(float(reference["m"].diagonal().mean()))}
    torch.testing.assert_close(state["m"] + multiples["m"] * EYE, reference["m"])
    assert abs(float(state["m"].trace())) < 1e-12


def test_units_in_another_order_on_one_side_keep_the_identity() -> None:
    """There no rotation leaves it what it is."""
    listed = Slot("stream", "m", (1,), Layout(1, 6, listed=(1, 0, 2, 3, 4, 5)))
    symmetry = ContinuousSymmetry(GROUP, "orthogonal", ((SLOTS[0], 1), (listed, 1)))
    reference = planted()[0]
    state, multiples = without_identity(reference, ContinuousSpec((symmetry,)))
    assert multiples == {}
    assert state["m"] is reference["m"]


def test_the_start_is_what_fixed_bases_pin_down() -> None:
    """What the matrix says of one side depends on the other, which is not known yet."""
    reference, target, rotation, _ = planted()
    target["m"] = 100 * target["m"].flip(0)
    standing = Standing(
        reference,
        target,
        SPEC,
        {"stream": EYE},
        continuous=CONTINUOUS,
    )
    search = CoordinateAscent(standing, torch.Generator())
    search.anchor(SPEC.groups)
    torch.testing.assert_close(search.standing.permutations["stream"], rotation)


def test_a_stream_that_nothing_pins_down_starts_by_its_matrix() -> None:
    reference, target, rotation, _ = planted()
    alone = PermutationSpec((GROUP,), SLOTS[:2], {"m": (6, 6)})
    near = torch.linalg.matrix_exp(0.05 * (rotation - rotation.T)) @ rotation
    search = CoordinateAscent(
        Standing(reference, target, alone, {"stream": near}, continuous=CONTINUOUS), torch.Generator()
    )
    search.anchor(alone.groups)
    assert not torch.equal(search.standing.permutations["stream"], near)
