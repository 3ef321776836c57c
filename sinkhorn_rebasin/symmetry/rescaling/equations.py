"""Draw the equations that the rescalings of a network solve."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.slots import by_first_slot
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import scalable_slots
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials

FEWEST_DRAWS, MOST_DRAWS = 3, 24


class Equations:
    """Measure the output's response to scaling each slot.

    Attributes:
        slots: per group, the slots that can be scaled.
    """

    def __init__(self, trials: Trials, groups: Collection[str] | None = None) -> None:
        """Ask about these groups, or all."""
        self.trials = trials
        self.spec = trials.spec
        names = [group.name for group in by_first_slot(self.spec.groups, self.spec.slots)]
        self.slots = {
            name: scalable_slots(self.spec, name) for name in names if groups is None or name in groups
        }
        self._rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name, s in self.slots.items() if s}

    def gathered(self) -> dict[str, NDArray[np.float64]]:
        """Gather equations by group, (draws * units, slots).

        Note:
            - There are at least twice as many equations as unknowns.
            - Weights not reached are tried in training mode, then at other draws.
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
        self.trials.sometimes_reached = self._sometimes_reached()
        return {name: np.concatenate(parts) for name, parts in self._rows.items()}

    def unreached(self) -> dict[str, list[str]]:
        """List tensors by group that no draw reached.

        Note:
            The bias of keys counts as reached, though its effect cancels up to rounding.
        """
        tensors_by_group = {}
        for name, parts in self._rows.items():
            largest = np.abs(np.concatenate(parts)).max(axis=0, initial=0.0)
            tensors_by_group[name] = [
                s.tensor for s, size in zip(self.slots[name], largest, strict=True) if size == 0.0
            ]
        return {name: tensors for name, tensors in tensors_by_group.items() if tensors}

    def _draw(self) -> None:
        """Draw the equations of each network once."""
        for network in self.trials.networks:
            for name, part in self.trials.sensitivities(network, self.slots).items():
                self._rows[name].append(part)

    def _sometimes_reached(self) -> dict[str, list[Slot]]:
        """List slots by group that some draws reached."""
        slots_by_group = {}
        for name, parts in self._rows.items():
            on = np.stack([self.trials.reached(part) for part in parts])
            some = np.flatnonzero(on.any(axis=0) & ~on.all(axis=0))
            slots_by_group[name] = [self.slots[name][place] for place in some]
        return {name: slots for name, slots in slots_by_group.items() if slots}
