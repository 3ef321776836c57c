"""How fast scores move and how soft permutations are: the schedules that a short trial chooses between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sinkhorn_rebasin.front.recipe import Recipe

SLOWER, COOLER = 0.55, 0.45
"""What each further schedule multiplies the rates and the temperatures by."""
SHARE_OF_STEPS = 0.05


@dataclass(frozen=True)
class Schedule:
    """Hold rates and temperatures of annealed soft permutations.

    Temperatures are in units of the scores' spread: at a start a score is 1 where a unit is matched, and 0 elsewhere.

    Attributes:
        learning_rate, scale_learning_rate: of the scores and of the log-scales.
        temperatures: at the first and the last step of a cycle.
    """

    learning_rate: float
    scale_learning_rate: float
    temperatures: tuple[float, float]

    def __str__(self) -> str:
        first, last = self.temperatures
        return f"rate {self.learning_rate:.2g}, temperatures {first:.2g} to {last:.2g}"


def schedules(recipe: Recipe) -> list[Schedule]:
    """Return the recipe's schedule, and gentler ones.

    Each is slower by 0.55 and cooler by 0.45 than the one before. Cooler permutations stay closer to the start.

    Args:
        recipe: its ``trials`` says how many.

    Example:
        >>> [str(each) for each in schedules(Recipe(trials=2))]
        ['rate 0.1, temperatures 0.5 to 0.2', 'rate 0.055, temperatures 0.23 to 0.09']
    """
    first, last = recipe.temperatures
    return [
        Schedule(
            recipe.learning_rate * SLOWER**number,
            recipe.scale_learning_rate * SLOWER**number,
            (first * COOLER**number, last * COOLER**number),
        )
        for number in range(recipe.trials)
    ]


def trial_steps(recipe: Recipe, steps: int) -> int:
    """Return the steps of one trial.

    They are a twentieth, and none where nothing is to be chosen.

    Example:
        >>> trial_steps(Recipe(), 2000), trial_steps(Recipe(trials=1), 2000)
        (100, 0)
    """
    return max(1, int(SHARE_OF_STEPS * steps)) if recipe.trials > 1 and steps else 0


def best_of(tried: Sequence[Schedule], heights: Sequence[float]) -> Schedule:
    """Return the schedule whose trial ended lowest.

    Of equal ones it is the first.

    Example:
        >>> tried = schedules(Recipe(trials=2))
        >>> best_of(tried, [3.0, 2.0]) == tried[1], best_of(tried, [2.0, 2.0]) == tried[0]
        (True, True)
    """
    return tried[min(range(len(tried)), key=lambda number: heights[number])]
