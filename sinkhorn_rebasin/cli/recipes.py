"""From ``--recipe`` to a recipe: one of the names, or a file of YAML."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sinkhorn_rebasin.cli.failures import UsageError
from sinkhorn_rebasin.errors import RecipeError

if TYPE_CHECKING:
    from sinkhorn_rebasin.front import Recipe

NAMES = ("default", "quick", "transformer", "many")


def recipe_of(text: str | None, seconds: float | None = None) -> Recipe:
    """Return the recipe that a text names, within so many seconds.

    A file may say ``base: quick`` to change some settings of a named recipe.

    Raises:
        UsageError: there is no such recipe or file, or the file has a setting that no recipe has; the nearest one is
            named.
        RecipeError: a number out of its range.

    Example:
        >>> recipe_of("quick", seconds=60).seconds
        60
    """
    front: Any = importlib.import_module("sinkhorn_rebasin.front")
    recipes = front.Recipe
    named = {"default": recipes, **{each: getattr(recipes, each) for each in NAMES[1:]}}
    name = text or "default"
    settings = {} if name in named else _settings(name)
    base = settings.pop("base", name if name in named else "default")
    if base not in named:
        raise UsageError(f"Expected base to be one of {', '.join(NAMES)} in {name} but got {base!r}.")
    known = [each.name for each in fields(front.Recipe)]
    for key in settings:
        if key not in known:
            raise UsageError(
                f"Expected settings of a recipe in {name} but got {key!r}{_nearest(key, [*known, 'base'])}"
            )
    budget = {} if seconds is None else {"seconds": seconds}
    recipe: Recipe = replace(named[base](), **{**settings, **budget})
    return recipe


def _settings(name: str) -> dict[str, Any]:
    import yaml

    file = Path(name)
    if not file.is_file():
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise UsageError(
            f"Expected --recipe to be one of {', '.join(NAMES)} or a file of YAML but got {name!r}, which is none"
            f"{f'; did you mean {near[0]!r}?' if near else '.'}"
        )
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"Expected YAML in {file} but it does not load: {error}") from error
    if not isinstance(settings, Mapping):
        raise RecipeError(f"Expected names with values in {file} but got {type(settings).__name__}.")
    return {str(key): value for key, value in settings.items()}


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}."
