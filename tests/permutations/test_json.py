"""The JSON of a spec, as anybody may have written it."""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.permutations import Frozen, Group, Layout, PermutationSpec, Slot

SPEC = PermutationSpec(
    (Group("a", 4), Group("b", 2, 4, "a")),
    (
        Slot("a", "in", (0,), Layout(1, 4, stride=2, inner=2)),
        Slot("b", "in", (0,), Layout(4, 2, block_stride=2)),
        Slot("a", "odd", (1,), Layout(1, 4, listed=(3, 0, 1, 2))),
    ),
    {"in": (8, 3), "odd": (2, 4)},
    (Frozen("in", 1, "input of the network"),),
    frozenset({"odd"}),
)


def change(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Put a value at a place."""

    def changed(data: Any) -> None:
        *place, last, value = path
        for key in place:
            data = data[key]
        data[last] = value

    return changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("groups", 0, "size", 4.0), r"'size' of 'groups' of the spec\[0\] .* whole number .* got 4.0"),
        (change("groups", 0, "size", True), "whole number"),
        (change("groups", 0, "size", 0), "at least 1 but got 0"),
        (change("groups", 0, "size", -4), "at least 1"),
        (change("groups", 0, "size", "4"), "whole number"),
        (change("groups", 0, "name", 3), "'name' .* a text but got 3"),
        (change("groups", 1, "parent", 3), "'parent' .* a text"),
        (change("groups", {"a": 4}), "a list"),
        (change("slots", 0, "layout", "stride", 2.0), "'stride' .* whole number but got 2.0"),
        (change("slots", 0, "layout", "offset", -1), "at least 0"),
        (change("slots", 0, "layout", []), "'layout' .* a dict"),
        (change("slots", 0, "axes", [0.0]), r"'axes' .*\[0\]"),
        (change("slots", 2, "layout", "listed", [3, 0, 1]), r"slots\[2\] .* to list 4 positions but got 3"),
        (change("slots", 2, "layout", "listed", [3, 0, 1, 2.0]), "whole number"),
        (change("slots", 2, "layout", "listed", [3, 0, 1, 9]), "distinct positions below 4"),
        (change("slots", 0, "layout", "outer", 10**10), "at most 33554432 positions but got 80000000000"),
        (change("slots", 0, "layout", "size", 10**9), "at most"),
        (change("shapes", "in", [8.0, 3]), "shape of 'in'"),
        (change("shapes", "in", 8), "shape of 'in' .* a list"),
        (change("shapes", [1]), "shapes .* a dict"),
        (change("frozen", 0, "reason", ["x"]), "'reason' .* a text"),
        (change("frozen", 0, "axis", None), "'axis' .* whole number"),
        (change("buffers", "odd"), "'buffers' .* a list"),
        (change("buffers", [["odd"]]), "a text"),
        (change("tied", ["in"]), "'tied' .* a list"),
        (change("slots", 0, "unknown", 1), ""),
    ],
)
def test_what_cannot_be_is_told(edit: Callable[[Any], None], message: str) -> None:
    data = json.loads(SPEC.to_json())
    edit(data)
    if message:
        with pytest.raises(SpecError, match=message):
            PermutationSpec.from_json(json.dumps(data))
    else:
        assert PermutationSpec.from_json(json.dumps(data)) == SPEC


@pytest.mark.parametrize("text", ["[" * 100_000, '{"groups":' * 50_000, "[]", "3", "null", "1" * 5000, '"x"'])
def test_what_is_no_spec_is_told(text: str) -> None:
    with pytest.raises(SpecError, match="JSON of a spec"):
        PermutationSpec.from_json(text)


@pytest.mark.parametrize("size", [10**6, 10**7, 10**8, 10**12])
def test_a_few_words_take_no_time_and_no_memory(size: int) -> None:
    data = json.loads(SPEC.to_json())
    data["groups"] = [{"name": "a", "size": size, "blocks": 1, "parent": None}]
    data["slots"] = [
        {"group": "a", "tensor": f"t{n}", "axes": [0], "layout": {"blocks": 1, "size": size}}
        for n in range(9)
    ]
    data["shapes"] = {f"t{n}": [size] for n in range(9)}
    text, start = json.dumps(data), time.perf_counter()
    try:
        assert PermutationSpec.from_json(text)["a"].size == size
    except SpecError:
        assert size > 2**25
    assert time.perf_counter() - start < 0.5


def test_equal_places_are_found_as_by_listing_them() -> None:
    """Every layout of a few small numbers."""
    steps, found = (-3, -1, 0, 1, 2, 3, 4, 6), {True: 0, False: 0}
    for blocks, size, outer, inner in itertools.product((1, 2), (1, 3), (1, 2), (1, 2)):
        for block_stride, stride, outer_stride in itertools.product(steps, steps, steps):
            layout = Layout(blocks, size, 4, block_stride, stride, outer, outer_stride, inner)
            table = layout.table()
            for length in (12, 40):
                inside = table.min() >= 0 and table.max() < length
                expected = bool(inside and len(np.unique(table)) == table.size)
                assert layout.places_apart(length) == expected, layout
                found[expected] += 1
    assert min(found.values()) > 1000


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "`<b>`", "a|b\n\n# x", "\\`x", "[x](y)&lt;", "``"]
)
def test_nothing_of_a_file_leaves_its_cell_in_a_notebook(text: str) -> None:
    data = copy.deepcopy(json.loads(SPEC.to_json()))
    data["frozen"][0]["reason"] = text
    data["groups"][0]["name"] = data["slots"][0]["group"] = data["slots"][2]["group"] = text
    data["groups"][1]["parent"] = text
    spec = PermutationSpec.from_json(json.dumps(data))
    shown = spec._repr_markdown_()
    assert "<script" not in shown
    assert "<b>" not in shown
    for line in shown.splitlines():
        outside = "".join(line.split("`")[::2])
        assert "[x]" not in outside
        assert line.count("`") % 2 == 0
        assert not line.startswith("# x")
    assert "<script" not in spec.to_mermaid()


def test_plain_cells_stay_plain() -> None:
    assert "| `in[1]` |" in SPEC._repr_markdown_()
