"""Which slots of a group may change their sign together: sets of slots, found by meeting in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, ScaleSymmetry, Slot, rescale_state
from sinkhorn_rebasin.symmetry.rescaling.sign_equations import SignEquations

MOST_SLOTS = 8
"""Most slots whose sets are all compared."""
MOST_SOLVED = 64
"""Most slots whose flips are solved for."""
MOST_SUMS = 6
"""Most flips of which every sum is compared, to name the smallest ones."""

Flips = NDArray[np.int64]


def sign_candidates(
    spec: PermutationSpec,
    group: str,
    slots: Sequence[Slot],
    positive: Sequence[ScaleSymmetry],
    state: State,
    outputs: Callable[[State], list[Tensor]],
    tolerance: float,
    generator: torch.Generator,
) -> list[Flips]:
    r"""Find sets of slots whose common flip changes nothing.

    A flip of the set A ∪ B changes nothing exactly if the flip of A alone does what that of B alone does, for
    flips undo themselves. With A from the first half of the slots and B from the second, all
    :math:`2^K` sets are compared at the cost of :math:`2 \cdot 2^{K/2}` forwards. Groups with more than
    :data:`MOST_SLOTS` slots, such as those of gated recurrent cells, are asked for
    :class:`SignEquations`. With more than :data:`MOST_SOLVED`, such as
    residual streams through many layers, they are asked for the odd exponents of their positive generators alone.

    Returns:
        A basis over the integers modulo 2, smallest sets first.
    """
    if not slots:
        return []
    noise = torch.randn(spec[group].shape, generator=generator, dtype=torch.float64, device=generator.device)
    drawn = torch.where(noise == noise.min(), -1.0, noise.sign())[None]
    if len(slots) > MOST_SOLVED:
        return odd_exponents(slots, positive)
    if len(slots) > MOST_SLOTS:
        chosen = torch.where(noise == noise.max(), noise == noise.min(), drawn[0] < 0)
        scaled = _scaling(spec, group, slots, state, outputs, chosen)
        solutions = SignEquations(scaled, len(slots), tolerance, generator).solved()
        return odd_exponents(slots, positive) if solutions is None else _smallest(solutions)
    signs = {group: drawn.to(state[slots[0].tensor].dtype.to_real())}

    def flipped(chosen: Flips) -> list[Tensor]:
        flips = ScaleSymmetry(group, "sign", tuple((s, 1) for s, on in zip(slots, chosen, strict=True) if on))
        return outputs(rescale_state(state, spec, RescalingSpec((group,), (flips,)), None, signs))

    half = len(slots) // 2
    first = {one: flipped(np.array(one)) for one in _sets(half, len(slots), 0)}
    second = {one: flipped(np.array(one)) for one in _sets(len(slots) - half, len(slots), half)}
    equal = [
        np.array(one) + np.array(other)
        for one, ours in first.items()
        for other, theirs in second.items()
        if largest_change(ours, theirs) <= tolerance
    ]
    return _basis([flips for flips in equal if flips.any()])


def _scaling(
    spec: PermutationSpec,
    group: str,
    slots: Sequence[Slot],
    state: State,
    outputs: Callable[[State], list[Tensor]],
    chosen: Tensor,
) -> Callable[[Tensor], list[Tensor]]:
    """Express outputs by one factor a slot.

    Note:
        Only the units in ``chosen`` are scaled.
    """
    each = RescalingSpec((group,), tuple(ScaleSymmetry(group, "sign", ((slot, 1),)) for slot in slots))
    dtype = state[slots[0].tensor].dtype.to_real()

    def scaled(factors: Tensor) -> list[Tensor]:
        values = torch.where(chosen, factors.reshape(-1, *[1] * chosen.ndim).to(chosen.device, dtype), 1.0)
        return outputs(rescale_state(state, spec, each, None, {group: values.to(dtype)}))

    return scaled


def odd_exponents(slots: Sequence[Slot], positive: Sequence[ScaleSymmetry]) -> list[Flips]:
    """Find slots with odd exponents in positive generators."""
    exponents = [dict(one.exponents) for one in positive]
    odd = (np.array([found.get(slot, 0) % 2 for slot in slots]) for found in exponents)
    return [flips for flips in odd if flips.any()]


def _smallest(basis: Sequence[Flips]) -> list[Flips]:
    """Choose the smallest basis of the same flips."""
    if len(basis) > MOST_SUMS:
        return list(basis)
    sums = (np.array(bits) @ np.array(basis) % 2 for bits in product((0, 1), repeat=len(basis)) if any(bits))
    return _basis(list(sums))


def _sets(size: int, length: int, start: int) -> Iterator[tuple[int, ...]]:
    """Yield all sets of a range of slots."""
    for bits in product((0, 1), repeat=size):
        yield (0,) * start + bits + (0,) * (length - start - size)


def _basis(candidates: Sequence[Flips]) -> list[Flips]:
    """Keep the smallest vectors that are independent modulo 2."""
    reduced: list[int] = []
    basis = []
    for flips in sorted(candidates, key=lambda one: (int(one.sum()), tuple(-one))):
        rest = int("".join(map(str, flips)), 2)
        for known in reduced:
            rest = min(rest, rest ^ known)
        if rest:
            reduced.append(rest)
            reduced.sort(reverse=True)
            basis.append(flips)
    return basis
