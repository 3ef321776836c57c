from __future__ import annotations

from typing import Any

import pytest

from sinkhorn_rebasin import Recipe
from sinkhorn_rebasin.errors import RecipeError


def test_the_defaults_are_the_measured_ones() -> None:
    recipe = Recipe()
    assert (recipe.steps, recipe.cycles, recipe.closing_steps) == (2000, 4, 1000)
    assert (recipe.learning_rate, recipe.scale_learning_rate, recipe.closing_learning_rate) == (
        0.1,
        0.01,
        0.03,
    )
    assert recipe.temperatures == (0.5, 0.2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("steps", 2.5),
        ("steps", True),
        ("permutation_steps", -1),
        ("cycles", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("scale_learning_rate", "fast"),
        ("closing_learning_rate", -0.1),
        ("temperatures", (0.5, 0.0)),
        ("temperatures", 0.5),
        ("closing_positions", (0.6, 0.4)),
        ("closing_positions", (0.4, 1.4)),
        ("points", 8),
        ("points", 1),
        ("seconds", 0),
        ("noise", -1.0),
        ("evaluate_every", 0),
        ("starts", ()),
        ("starts", ("weights",)),
    ],
)
def test_a_number_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=name):
        Recipe(**{name: value})


def test_a_shorter_recipe_keeps_its_evaluations() -> None:
    short = Recipe().shortened(0.05)
    assert (short.steps, short.cycles, short.closing_steps) == (100, 2, 50)
    assert short.steps / short.evaluate_every == Recipe().steps / Recipe().evaluate_every
    assert Recipe().shortened(1.0) == Recipe()
    assert Recipe().shortened(0.0).steps == 0
    assert Recipe(permutation_steps=600).shortened(0.1).permutation_steps == 60
