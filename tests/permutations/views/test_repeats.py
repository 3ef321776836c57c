from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkhorn_rebasin.permutations.views.repeats import collapse


def expanded(pattern: str) -> list[str]:
    """Every name a pattern stands for, found by its notation alone."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = []
    for number, part in enumerate(parts):
        found = []
        for piece in part.split(",") if number % 2 else [part]:
            ends = piece.split("..") if number % 2 else [piece]
            found += [str(n) for n in range(int(ends[0]), int(ends[1]) + 1)] if len(ends) == 2 else [piece]
        choices.append(found)
    return ["".join(parts) for parts in itertools.product(*choices)]


@pytest.mark.parametrize(
    ("names", "leaves", "patterns"),
    [
        ([f"h.{n}.a" for n in range(12)], False, ["h.{0..11}.a"]),
        (["h.0.a", "h.1.a"], False, ["h.{0,1}.a"]),
        (["h.0", "h.1", "h.2", "h.4", "h.7"], False, ["h.{0..2,4,7}"]),
        ([f"{a}.{b}" for a in range(3) for b in range(2)], False, ["{0..2}.{0,1}"]),
        (["0.weight", "0.bias", "1.weight"], True, ["0.{weight,bias}", "1.weight"]),
        (["0.weight", "0.bias", "1.weight", "1.bias"], True, ["{0,1}.{weight,bias}"]),
        (["weight", "bias"], True, ["weight", "bias"]),
        (["a", "b"], False, ["a", "b"]),
        ([], True, []),
    ],
)
def test_patterns_by_hand(names: list[str], leaves: bool, patterns: list[str]) -> None:
    assert collapse(names, leaves=leaves) == patterns


name = st.lists(st.sampled_from(["a", "0", "1", "2", "10", "b3", "w_1"]), min_size=1, max_size=4).map(
    ".".join
)


@given(st.lists(name, unique=True, max_size=12), st.booleans())
def test_patterns_stand_for_exactly_the_names_each_once(names: list[str], leaves: bool) -> None:
    assert sorted(n for pattern in collapse(names, leaves=leaves) for n in expanded(pattern)) == sorted(names)
