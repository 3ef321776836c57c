from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sinkhorn_rebasin.permutations import Frozen, Group, Layout, PermutationSpec, Slot
from sinkhorn_rebasin.permutations.views.coverage import covered_share
from sinkhorn_rebasin.permutations.views.report import WIDTH
from tests.permutations.specs import NESTED, PART, SPECS, WHOLE

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def chain(depth: int, size: int = 4) -> PermutationSpec:
    """Linear layers in a row, hidden groups of one size, the last of another."""
    sizes = [size] * (depth - 1) + [size + 1]
    groups = tuple(Group(f"layers/{n}", size) for n, size in enumerate(sizes))
    slots = []
    shapes = {}
    for n, size in enumerate(sizes):
        shapes |= {f"layers.{n}.up": (size, 2), f"layers.{n}.down": (2, size)}
        slots += [
            Slot(f"layers/{n}", f"layers.{n}.up", (0,), Layout(1, size)),
            Slot(f"layers/{n}", f"layers.{n}.down", (1,), Layout(1, size)),
        ]
    return PermutationSpec(groups, tuple(slots), shapes)


def row(text: str, start: str) -> list[str]:
    """Cells of the line that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return re.split(r" {2,}", line)


@every_spec
def test_every_group_and_frozen_axis_is_shown_within_the_width(spec: PermutationSpec) -> None:
    text = str(replace(spec, frozen=(Frozen("w", 0, "a | reason", "aten.sort", "m", "net.py:3"),)))
    for expected in (*spec.names, "a | reason", "aten.sort", "net.py:3", "w[0]", f"{spec.coverage:.1%}"):
        assert expected in text
    assert f"{sum(group.units for group in spec.groups)} units" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert "\x1b" not in text


def test_nested_groups_name_their_parent_and_layouts_their_extent() -> None:
    assert row(str(NESTED), "inner")[:4] == ["inner", "1", "2 x 3", "heads"]
    assert "w[0 x 6]" in str(NESTED)
    assert "w[0 from 1]" in str(PART)


def test_repeats_share_a_row_and_others_do_not() -> None:
    text = str(chain(12))
    cells = row(text, "layers/{0..10}")
    assert cells[1:3] == ["11", "4"]
    assert cells[4] == "layers.{0..10}.up[0], layers.{0..10}.down[1]"
    assert row(text, "layers/11")[1:3] == ["1", "5"]


def test_groups_with_other_slots_do_not_share_a_row() -> None:
    spec = chain(4)
    fewer = replace(spec, slots=spec.slots[1:])
    assert row(str(fewer), "layers/{1,2}")[1] == "2"
    assert row(str(fewer), "layers/0")[1] == "1"


def test_shares_of_groups_are_counts() -> None:
    elements = 12 + 8 + 24 + 5
    assert covered_share(WHOLE, {"a"}) == pytest.approx((12 + 8 + 24) / elements)
    assert covered_share(PART, {"b"}) == pytest.approx(4 / 24)
    assert covered_share(PART, {"a"}) == pytest.approx((6 + 6) / 24)
    assert covered_share(PART, {"a", "b"}) == pytest.approx(PART.coverage)
    assert covered_share(PART, set()) == 0.0


def test_frozen_axes_share_a_row_by_reason_operation_and_line() -> None:
    frozen = [
        Frozen(f"h.{n}.w", axis, "kernel", "aten.conv", f"h.{n}", "a.py:1")
        for n in range(8)
        for axis in (2, 3)
    ]
    frozen += [Frozen("x", 0, "kernel", "aten.conv", "", "a.py:2"), Frozen("y", 0, "other")]
    text = str(replace(WHOLE, frozen=tuple(frozen)))
    assert "frozen: 18 axes" in text
    lines = [line.split() for line in text.splitlines() if line.startswith(("kernel", "other"))]
    assert lines == [
        ["kernel", "aten.conv", "a.py:1", "16", "h.{0..7}.w[2,3]"],
        ["kernel", "aten.conv", "a.py:2", "1", "x[0]"],
        ["other", "1", "y[0]"],
    ]


def test_long_lists_are_cut_and_what_is_left_out_is_counted() -> None:
    groups = tuple(Group(f"g{'x' * n}", 2) for n in range(60))
    slots = tuple(Slot(group.name, group.name, (0,), Layout(1, 2)) for group in groups)
    frozen = tuple(Frozen(f"t{'y' * n}", n, f"reason {min(n, 90)}") for n in range(100))
    text = str(PermutationSpec(groups, slots, {group.name: (2,) for group in groups}, frozen))
    assert "and 20 more groups" in text
    assert "and 75 more axes for 66 more reasons" in text
    assert len(text.splitlines()) < 250
    many = tuple(Frozen("t" + "z" * n, 0, "why") for n in range(9))
    assert "tzzz[0] and 5 more" in " ".join(str(replace(WHOLE, frozen=many)).split())


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    spec = replace(WHOLE, frozen=(Frozen("[red]w", 0, "[bold]why[/bold] :smile:"),))
    assert "[bold]why[/bold] :smile:" in str(spec)
    assert "[red]w[0]" in str(spec)


def test_markdown_has_the_same_rows() -> None:
    spec = replace(NESTED, frozen=(Frozen("w", 0, "this | that"),))
    text = spec._repr_markdown_()
    assert "| `inner` | `1` | `2 x 3` | `heads` |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert sorted({line.count("|") for line in tables}) == [6, 7]


def test_a_spec_without_anything_is_one_line() -> None:
    assert str(PermutationSpec((), (), {})).splitlines() == [
        "PermutationSpec: 0 groups, 0 units, 0 slots; 0.0% of 0 parameter elements on a permutable axis"
    ]
