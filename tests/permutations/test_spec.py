from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations import Frozen, Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.spec import tensor_shapes
from tests.cases import CASES, Case, spec_of
from tests.permutations.specs import NESTED, PART, SPECS, WHOLE, state_of

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def with_slot(slot: Slot) -> PermutationSpec:
    return replace(WHOLE, slots=(slot,))


@every_spec
def test_json_round_trip(spec: PermutationSpec) -> None:
    full = replace(
        spec, frozen=(Frozen("x", 1, 'a "reason"'),), buffers=frozenset({"b", next(iter(spec.shapes))})
    )
    read = PermutationSpec.from_json(full.to_json())
    assert read == full
    assert read.to_json() == full.to_json()
    assert hash(read) == hash(full)
    assert json.loads(full.to_json())["fingerprint"] == spec.fingerprint


@pytest.mark.parametrize("case", CASES, ids=str)
def test_json_round_trip_of_discovered_specs(case: Case) -> None:
    spec = spec_of(case)
    assert PermutationSpec.from_json(spec.to_json()) == spec


@every_spec
def test_two_way(spec: PermutationSpec) -> None:
    from_groups = {slot for name in spec.names for slot in spec.slots_of(name)}
    from_tensors = {slot for tensor in spec.shapes for slot in spec.slots_on(tensor)}
    assert from_groups == from_tensors == set(spec.slots)
    assert all(name in spec for name in spec.names)
    assert "nothing" not in spec
    assert spec.slots_on("nothing") == ()


def test_nested_slots_come_first() -> None:
    assert [slot.group for slot in NESTED.slots_on("w")] == ["cell", "inner", "heads"]


def covered_by_count(spec: PermutationSpec) -> float:
    total = covered = 0
    for name, shape in spec.shapes.items():
        if name in spec.buffers or any(name in names[1:] for names in spec.tied):
            continue
        for place in np.ndindex(*shape):
            total += 1
            covered += any(
                np.ravel_multi_index([place[a] for a in slot.axes], [shape[a] for a in slot.axes])
                in slot.layout.table()
                for slot in spec.slots_on(name)
            )
    return covered / total


@every_spec
def test_coverage_is_a_count(spec: PermutationSpec) -> None:
    assert spec.coverage == pytest.approx(covered_by_count(spec))
    assert replace(spec, buffers=frozenset(spec.shapes)).coverage == 0.0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_coverage_of_discovered_specs_is_a_count(case: Case) -> None:
    spec = spec_of(case)
    assert spec.coverage == pytest.approx(covered_by_count(spec))


def test_coverage_of_large_tensors() -> None:
    spec = PermutationSpec(
        (Group("a", 100), Group("b", 300)),
        (Slot("a", "w", (0,), Layout(1, 100)), Slot("b", "w", (1,), Layout(1, 300))),
        {"w": (400, 400)},
    )
    assert spec.coverage == pytest.approx(1 - 0.75 * 0.25)


def test_fingerprints_are_of_the_architecture() -> None:
    assert WHOLE.fingerprint == WHOLE.without("a").fingerprint
    assert WHOLE.fingerprint == replace(WHOLE, shapes=dict(reversed(WHOLE.shapes.items()))).fingerprint
    other = replace(WHOLE, shapes={**WHOLE.shapes, "free": (6,)})
    renamed = replace(WHOLE, shapes={**{k: v for k, v in WHOLE.shapes.items() if k != "free"}, "freed": (5,)})
    assert len({spec.fingerprint for spec in (WHOLE, other, renamed, NESTED)}) == 4


def test_dropping_groups() -> None:
    spec = PART.without("a")
    assert spec.names == ["b"]
    assert all(slot.group == "b" for slot in spec.slots)
    assert {(f.tensor, f.axis) for f in spec.frozen} == {("w", 0), ("gates", 0)}
    assert all("'a' was dropped" in f.reason for f in spec.frozen)
    assert PART.names == ["a", "b"]
    assert PART.without() == PART


def test_dropping_keeps_what_lives_inside() -> None:
    assert NESTED.without("heads")["inner"].parent is None
    assert NESTED.without("inner")["cell"].parent == "heads"
    assert NESTED.without("heads", "inner")["cell"].parent is None
    assert NESTED.without("inner")["cell"].shape == (6, 2)


def test_specs_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        WHOLE.groups = ()  # type: ignore[misc]


def test_shapes_of_a_state() -> None:
    assert tensor_shapes(state_of(WHOLE), ["in", "free"]) == {"in": (4, 3), "free": (5,)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PermutationSpec((Group("a", 2), Group("a", 3)), (), {}),
            "distinct group names but got 'a' twice",
        ),
        (
            lambda: PermutationSpec((Group("b", 2, 2, "a"), Group("a", 2)), (), {}),
            r"the parent 'a' of group 'b' to come before it but got the groups \[\]",
        ),
        (
            lambda: PermutationSpec((Group("a", 2), Group("b", 2, 3, "a")), (), {}),
            "group 'b' to have as many blocks in each of the 2 units of its parent 'a' but got 3",
        ),
        (lambda: with_slot(Slot("x", "in", (0,), Layout(1, 4))), "group 'x', tensor 'in'"),
        (lambda: with_slot(Slot("a", "x", (0,), Layout(1, 4))), "group 'a', tensor 'x'"),
        (lambda: with_slot(Slot("a", "in", (0,), Layout(1, 3))), r"'in', axes \(0,\), to place 1 x 4 units"),
        (lambda: with_slot(Slot("a", "in", (0,), Layout(1, 4, offset=1))), "distinct positions below 4"),
        (lambda: with_slot(Slot("a", "in", (0,), Layout(1, 4, offset=-1))), "distinct positions below 4"),
        (lambda: with_slot(Slot("a", "in", (0,), Layout(1, 4, stride=0))), "distinct positions below 4"),
        (lambda: with_slot(Slot("a", "in", (2,), Layout(1, 4))), r"\(4, 3\), but got axes \(2,\)"),
        (lambda: WHOLE["b"], r"one of the groups \['a'\] but got 'b'"),
        (lambda: WHOLE.slots_of("b"), "but got 'b'"),
        (lambda: WHOLE.without("b"), "but got 'b'"),
        (lambda: WHOLE.check_state({}), "'in', which this spec permutes, but it is missing"),
        (lambda: WHOLE.check_state({**state_of(WHOLE), "in": torch.zeros(3)}), r"\(4, 3\) but got \(3,\)"),
        (lambda: PermutationSpec.from_json("{}"), "JSON"),
        (lambda: PermutationSpec.from_json("no json"), "JSON"),
    ],
)
def test_what_does_not_fit_is_told(make, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()
