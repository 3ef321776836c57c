"""What is measured of one curve: the ways to train its bend, and every budget of steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.curves.setting import Setting, Way
from experiments.curves.training import connected, lowest, measured, short, trained
from experiments.data import ImageData
from experiments.models.family import Batches
from experiments.reporting.finished import Finished
from sinkhorn_rebasin.connectivity import LearnedCurve


@dataclass(frozen=True)
class Study:
    """Train a quadratic Bezier curve with every budget, in the way that is best after a pilot.

    Attributes:
        curve: as it is before the first step; it is not changed.
        data: whose training images it learns from.
        held: batches that no network was trained on, which decide between ways.
        tests: batches that it is measured on.
        setting: ways and budgets.
        seed: of what is drawn.
        before: steps that were taken already, which count.
        kept: where every training that was measured is kept.
    """

    curve: LearnedCurve
    data: ImageData
    held: Batches
    tests: Batches
    setting: Setting
    seed: int
    before: int
    kept: Finished

    def chosen_way(self) -> tuple[Way, list[dict[str, Any]]]:
        """Return the way with the least held-out loss along the curve after the pilot, and what all had."""
        ways = self.setting.ways
        if len(ways) == 1:
            return ways[0], []
        found = [self.kept.row(f"pilot-{way}".replace(" ", "-"), partial(self._pilot, way)) for way in ways]
        losses = [float(each["held-out loss"]) for each in found]
        return ways[losses.index(min(losses))], found

    def _pilot(self, way: Way) -> dict[str, Any]:
        curve = trained(self.curve, self.data, self.setting, way, self.setting.pilot, self.seed)
        path = measured(curve, self.data, self.held, self.setting)
        return {"way": str(way), "held-out loss": float(path.losses.mean()), "barrier": path.barrier}

    def budgets(self, way: Way, enough: float) -> Iterable[dict[str, Any]]:
        """Measure the curve after every budget on test images.

        They end with the first budget whose curve is connected, with the first of enough steps, or with the last.

        Args:
            way: how the bend is trained.
            enough: steps beyond which nothing is asked of the curve.
        """
        for steps in self.setting.budgets:
            found = self.kept.row(f"{way}-{steps}".replace(" ", "-"), partial(self._after, way, steps))
            yield found
            if found["connected"] or found["step"] >= enough:
                break

    def _after(self, way: Way, steps: int) -> dict[str, Any]:
        curve = trained(self.curve, self.data, self.setting, way, steps, self.seed)
        path = measured(curve, self.data, self.tests, self.setting)
        return {
            "step": self.before + steps,
            **path.to_dict(),
            "lowest": lowest(path),
            "short": short(path),
            "connected": connected(path, self.setting.tolerance),
        }
