"""How an alignment is trained, with the defaults that were measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from sinkhorn_rebasin.connectivity.path_result import PathFigure
from sinkhorn_rebasin.errors import RecipeError

StartName: TypeAlias = Literal[
    "weight_matching", "activation_matching", "activation_matching_uncentred", "as_they_are"
]
STARTS: tuple[StartName, ...] = get_args(StartName)
FEWEST_STEPS_OF_A_CYCLE = 50


@dataclass(frozen=True)
class Recipe:
    r"""Say how an alignment is trained.

    Cycles of annealed soft permutations come first. Scales alone are trained afterwards, at hard permutations. The
    defaults are those measured on small multilayer perceptrons and convolutional networks.

    Args:
        starts: matching methods, and ``"as_they_are"``, the surest first. A later one is the start where it is better
            than the earlier ones by more than a standard error.
        start_samples: at least so many training samples to match activations on.
        restarts: orders of the groups that weight matching tries when there are no data.
        steps, cycles: of the soft fit, and how often its temperature falls.
        learning_rate, scale_learning_rate: of Adam on the scores and on the log-scales in the soft fit.
        temperatures: τ at the first and the last step of each cycle; it falls geometrically.
        trials: schedules that are tried first, each for a twentieth of the steps: the rates and temperatures above,
            and gentler ones. The one that ends best on held-out data is trained; 1 trains the first untried.
        noise: standard deviation of what is added to the best scores when a cycle begins.
        permutation_steps: where a network has continuous maps, of a soft fit of permutations and maps together. The
            maps alone come after it. Transformers need none; inverted residuals, whose hidden units matching pairs
            badly, do.
        map_steps, map_learning_rate: of the fit of continuous maps, where a network has them; it takes the place of
            the soft fit, and its rate falls to zero by a cosine.
        closing_steps, closing_learning_rate: of the fit of the scales at hard permutations.
        closing_positions: range of λ in it.
        scale_decay: decoupled weight decay of the log-scales in both fits.
        folds: of fewer than 100 training samples, where no others are held out, each of so many parts is kept out of
            a fit of its own. What these say together decides, and a last fit learns from all. With 1, or
            with ``seconds``, one part is kept out once.
        validation_samples: at least so many held-out samples decide what is kept, if there are as many.
        statistics_samples: at least so many training samples measure batch norm, or do REPAIR.
        keep: what the best has the lowest of on held-out data: the ``"mean"`` loss along the path, the loss at its
            ``"midpoint"``, which is the merged network's, or the ``"barrier"``.
        points: positions on the path at which held-out data are evaluated, odd.
        evaluate_every: steps between evaluations.
        seconds: at most so many for the whole call; the fits are shortened to fit in, and never lengthened.

    Raises:
        RecipeError: a number out of its range, or a start that is not known; it is named.

    Example:
        >>> Recipe(steps=500).steps, Recipe.quick().steps, Recipe.transformer(seconds=60).temperatures
        (500, 400, (0.1, 0.05))
    """

    starts: tuple[StartName, ...] = ("weight_matching", "activation_matching", "as_they_are")
    start_samples: int = 2000
    restarts: int = 10
    steps: int = 2000
    cycles: int = 4
    learning_rate: float = 0.1
    scale_learning_rate: float = 0.01
    temperatures: tuple[float, float] = (0.5, 0.2)
    trials: int = 3
    noise: float = 0.1
    permutation_steps: int = 0
    map_steps: int = 400
    map_learning_rate: float = 0.03
    closing_steps: int = 1000
    closing_learning_rate: float = 0.03
    closing_positions: tuple[float, float] = (0.4, 0.6)
    scale_decay: float = 0.0
    folds: int = 5
    validation_samples: int = 5000
    statistics_samples: int = 500
    keep: PathFigure = "mean"
    points: int = 9
    evaluate_every: int = 100
    seconds: float | None = None

    @classmethod
    def quick(cls, **changes: Any) -> Recipe:
        """Return a fifth of the default steps, judged on fewer samples.

        Example:
            >>> Recipe.quick().cycles
            2
        """
        fewer = {"steps": 400, "cycles": 2, "map_steps": 200, "closing_steps": 200}
        return cls(**{**fewer, "evaluate_every": 50, "validation_samples": 1000, "points": 5, **changes})

    @classmethod
    def transformer(cls, **changes: Any) -> Recipe:
        """Return the settings measured on vision transformers.

        A low temperature keeps soft permutations close to the start: units of a transformer must not be averaged.

        Example:
            >>> Recipe.transformer().learning_rate
            0.03
        """
        measured = {
            **{"steps": 800, "cycles": 2, "learning_rate": 0.03, "temperatures": (0.1, 0.05)},
            **{"closing_steps": 400, "closing_learning_rate": 0.01, "validation_samples": 1000, "points": 5},
        }
        return cls(**{**measured, **changes})

    @classmethod
    def many(cls, **changes: Any) -> Recipe:
        """Return the settings measured on several networks learned together.

        Example:
            >>> Recipe.many().temperatures
            (1.0, 0.1)
        """
        measured = {
            **{"steps": 3300, "cycles": 3, "temperatures": (1.0, 0.1), "scale_learning_rate": 0.02},
            **{"closing_steps": 1000, "closing_learning_rate": 0.02, "validation_samples": 2000},
        }
        return cls(**{**measured, **changes})

    def __post_init__(self) -> None:
        for name in ("starts", "temperatures", "closing_positions"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if not isinstance(self.starts, tuple) or not self.starts or not set(self.starts) <= set(STARTS):
            raise RecipeError(f"Expected starts out of {', '.join(STARTS)} but got {self.starts!r}.")
        if self.keep not in get_args(PathFigure):
            raise RecipeError(
                f"Expected keep to be one of {', '.join(get_args(PathFigure))} but got {self.keep!r}."
            )
        for name in (
            "start_samples",
            "restarts",
            "cycles",
            "trials",
            "folds",
            "validation_samples",
            "statistics_samples",
        ):
            self._check(name, int, least=1)
        for name in ("steps", "permutation_steps", "map_steps", "closing_steps"):
            self._check(name, int, least=0)
        self._check("evaluate_every", int, least=1)
        for name in ("learning_rate", "scale_learning_rate", "map_learning_rate", "closing_learning_rate"):
            self._check(name, float, above=0)
        for name in ("noise", "scale_decay"):
            self._check(name, float, least=0)
        if self.seconds is not None:
            self._check("seconds", float, above=0)
        self._check("points", int, least=3)
        if self.points % 2 == 0:
            raise RecipeError(
                f"Expected an odd number of points, so that the midpoint is one, but got {self.points}."
            )
        self._check_pair("temperatures", 0.0, math.inf)
        self._check_pair("closing_positions", 0.0, 1.0)

    def _check(self, name: str, kind: type, *, least: float = -math.inf, above: float = -math.inf) -> None:
        value = getattr(self, name)
        number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < least or value <= above:
            bound = f"at least {least:g}" if least > -math.inf else f"above {above:g}"
            whole = "a whole number" if kind is int else "a number"
            raise RecipeError(f"Expected {name} to be {whole} {bound} but got {value!r}.")

    def _check_pair(self, name: str, low: float, high: float) -> None:
        """Raise unless a pair lies in its range: temperatures above zero, positions in order."""
        pair = getattr(self, name)
        numbers = (
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(v, (int, float)) for v in pair)
        )
        if not numbers or not all(low <= value <= high and math.isfinite(value) for value in pair):
            raise RecipeError(f"Expected {name} to be two numbers from {low:g} to {high:g} but got {pair!r}.")
        if name == "temperatures" and min(pair) <= 0:
            raise RecipeError(f"Expected temperatures above 0 but got {pair!r}.")
        if name == "closing_positions" and pair[0] > pair[1]:
            raise RecipeError(f"Expected closing_positions in ascending order but got {pair!r}.")

    def shortened(self, factor: float) -> Recipe:
        """Return a recipe with a part of the steps, and as many evaluations.

        Cycles become fewer before they become shorter than 50 steps.

        Args:
            factor: from 0 to 1.

        Example:
            >>> short = Recipe().shortened(0.1)
            >>> short.steps, short.cycles, short.closing_steps, short.evaluate_every
            (200, 4, 100, 10)
        """
        steps = int(self.steps * factor)
        cycles = max(1, min(self.cycles, steps // FEWEST_STEPS_OF_A_CYCLE))
        return replace(
            self,
            steps=steps,
            cycles=cycles,
            permutation_steps=int(self.permutation_steps * factor),
            map_steps=int(self.map_steps * factor),
            closing_steps=int(self.closing_steps * factor),
            evaluate_every=max(1, min(self.evaluate_every, math.ceil(self.evaluate_every * factor))),
        )

    def __repr__(self) -> str:
        standard = {field.name: field.default for field in fields(self)}
        changed = [f"{n}={getattr(self, n)!r}" for n in standard if getattr(self, n) != standard[n]]
        return f"Recipe({', '.join(changed)})"
