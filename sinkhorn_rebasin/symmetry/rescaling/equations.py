"""The equations that the rescalings of a network solve, at draws that reach as many of its weights as they can."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.slots import by_first_slot
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import scalable_slots
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

FEWEST_DRAWS, MOST_DRAWS = 3, 24


class Equations:
    """What the output answers, at several draws, to scaling the units of each group slot by slot.

    Attributes:
        slots: per group, the slots that can be scaled.
    """

    def __init__(self, trials: Trials) -> None:
        self.trials = trials
        self.spec = trials.spec
        groups = by_first_slot(self.spec.groups, self.spec.slots)
        self.slots = {group.name: scalable_slots(self.spec, group.name) for group in groups}
        self._rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name, s in self.slots.items() if s}

    def gathered(self) -> dict[str, NDArray[np.float64]]:
        """Per group the equations of several draws, (draws * units, slots): at least twice as many as unknowns.

        Where a weight has no say in the output, its part may be in training mode, or at other draws.
        """
        needed = [math.ceil(2 * len(slots) / self.spec[name].units) for name, slots in self.slots.items()]
        draws = min(max(FEWEST_DRAWS, *needed, 0), MOST_DRAWS)
        for _ in range(draws):
            self._draw()
        if self.unreached() and self.trials.add_training_mode() is not None:
            for _ in range(draws):
                self._draw()
        while self.unreached() and draws < MOST_DRAWS:
            self._draw()
            draws += 1
        self.trials.sometimes_reached = self._restless()
        return {name: np.concatenate(parts) for name, parts in self._rows.items()}

    def unreached(self) -> dict[str, list[str]]:
        """Per group, tensors that took no part in the output at any draw.

        The bias of keys takes part, though what it adds cancels up to rounding: here nothing at all came back.
        """
        found = {}
        for name, parts in self._rows.items():
            largest = np.abs(np.concatenate(parts)).max(axis=0, initial=0.0)
            found[name] = [s.tensor for s, size in zip(self.slots[name], largest, strict=True) if size == 0.0]
        return {name: tensors for name, tensors in found.items() if tensors}

    def _draw(self) -> None:
        for network in self.trials.networks:
            for name, part in self.trials.sensitivities(network, self.slots).items():
                self._rows[name].append(part)

    def _restless(self) -> dict[str, list[Slot]]:
        """Per group, slots that the output depended on at some draws of a network but not at all of them."""
        found = {}
        for name, parts in self._rows.items():
            on = np.stack([self.trials.reached(part) for part in parts])
            some = np.flatnonzero(on.any(axis=0) & ~on.all(axis=0))
            found[name] = [self.slots[name][place] for place in some]
        return {name: slots for name, slots in found.items() if slots}
