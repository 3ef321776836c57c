"""The ways in which one unit of a group can be negated, and what that does to each of its slots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from sinkhorn_rebasin.permutations.rescaling import RescalingSpec, ScaleSymmetry
from sinkhorn_rebasin.permutations.slots import Slot, parts_of


@dataclass(frozen=True)
class SignPatterns:
    r"""Hold all sign patterns of a group's generators.

    A pattern is one sign for each sign generator. The first pattern changes nothing.

    Example:
        >>> from sinkhorn_rebasin.permutations import Layout
        >>> row, column = (Slot("hidden", name, (axis,), Layout(1, 4)) for name, axis in (("w", 0), ("v", 1)))
        >>> patterns = SignPatterns((ScaleSymmetry("hidden", "sign", ((row, 1),)),))
        >>> patterns.signs.tolist(), patterns.on(row).tolist(), patterns.on(column).tolist()
        ([[1.0], [-1.0]], [1.0, -1.0], [1.0, 1.0])
    """

    generators: tuple[ScaleSymmetry, ...]

    @classmethod
    def of(cls, rescaling: RescalingSpec, group: str) -> SignPatterns:
        """List a group's patterns.

        A group that the rescalings do not know has a single one.
        """
        return cls(rescaling.of(group, "sign") if group in rescaling.groups else ())

    @cached_property
    def signs(self) -> Tensor:
        """Return every generator's sign, (patterns, generators)."""
        rows = list(product((1.0, -1.0), repeat=len(self.generators)))
        return torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(len(rows), len(self.generators))

    def on(self, part: Slot) -> Tensor:
        """Return each pattern's factor on a slot, (patterns,).

        The slot may be a part of one.
        """
        return self.signs[:, self.negating(part)].prod(1)

    def negating(self, part: Slot) -> tuple[int, ...]:
        """Number the generators that negate a slot.

        The slot may be a part of one.
        """
        exponents = (self._exponent(generator, part) for generator in self.generators)
        return tuple(number for number, exponent in enumerate(exponents) if exponent % 2)

    def parts(self, slot: Slot) -> list[Slot]:
        """Split a slot where its parts change signs differently.

        Where all of it changes alike, the slot comes back whole.
        """
        named = {part for generator in self.generators for part, _ in generator.exponents}
        parts = parts_of(slot)
        return parts if len(parts) > 1 and not named.isdisjoint(parts) else [slot]

    def negates(self, slot: Slot) -> bool:
        """Tell whether some pattern negates part of a slot.

        The part may be the whole slot.
        """
        return any(self.negating(part) for part in self.parts(slot))

    @staticmethod
    def _exponent(generator: ScaleSymmetry, part: Slot) -> int:
        named = generator.exponents
        return next((exponent for slot, exponent in named if part == slot or part in parts_of(slot)), 0)


def negatable(rescaling: RescalingSpec, slots: Iterable[Slot]) -> set[Slot]:
    """Select the slots that a sign generator negates.

    The generator is one of the slot's group. It may negate a part of the slot alone.
    """
    return {slot for slot in slots if SignPatterns.of(rescaling, slot.group).negates(slot)}
