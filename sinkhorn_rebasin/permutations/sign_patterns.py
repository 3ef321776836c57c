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
    r"""One sign for each sign generator of a group, in all combinations; the first pattern changes nothing.

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
        """The patterns of a group; a single one when the rescalings do not know it."""
        return cls(rescaling.of(group, "sign") if group in rescaling.groups else ())

    @cached_property
    def signs(self) -> Tensor:
        """The sign of every generator, (patterns, generators)."""
        rows = list(product((1.0, -1.0), repeat=len(self.generators)))
        return torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(len(rows), len(self.generators))

    def on(self, part: Slot) -> Tensor:
        """By what each pattern multiplies a slot, or a part of one, (patterns,)."""
        return self.signs[:, self.negating(part)].prod(1)

    def negating(self, part: Slot) -> tuple[int, ...]:
        """The numbers of the generators that negate a slot, or a part of one."""
        exponents = (self._exponent(generator, part) for generator in self.generators)
        return tuple(number for number, exponent in enumerate(exponents) if exponent % 2)

    def parts(self, slot: Slot) -> list[Slot]:
        """The slot, or the parts of it that change their sign unlike each other."""
        named = {part for generator in self.generators for part, _ in generator.exponents}
        parts = parts_of(slot)
        return parts if len(parts) > 1 and not named.isdisjoint(parts) else [slot]

    def negates(self, slot: Slot) -> bool:
        """Whether some pattern negates the slot or a part of it."""
        return any(self.negating(part) for part in self.parts(slot))

    @staticmethod
    def _exponent(generator: ScaleSymmetry, part: Slot) -> int:
        named = generator.exponents
        return next((exponent for slot, exponent in named if part == slot or part in parts_of(slot)), 0)


def negatable(rescaling: RescalingSpec, slots: Iterable[Slot]) -> set[Slot]:
    """Those of the slots that a sign generator of their group negates, in whole or in part."""
    return {slot for slot in slots if SignPatterns.of(rescaling, slot.group).negates(slot)}
