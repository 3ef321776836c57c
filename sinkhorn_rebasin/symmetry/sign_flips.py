"""Which slots of a group may change their sign together: sets of slots, found by meeting in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.networks.outputs import largest_change
from sinkhorn_rebasin.permutations import Generator, PermutationSpec, RescalingSpec, Slot, rescale_state

MOST_SLOTS = 8

Flips = NDArray[np.int64]


def sign_candidates(
    spec: PermutationSpec,
    group: str,
    slots: Sequence[Slot],
    positive: Sequence[Generator],
    state: State,
    outputs: Callable[[State], list[Tensor]],
    tolerance: float,
    generator: torch.Generator,
) -> list[Flips]:
    r"""Sets of slots, as vectors of zeros and ones, whose common flip of random units leaves the output unchanged.

    A flip of the set A ∪ B changes nothing exactly if the flip of A alone does what that of B alone does, for
    flips undo themselves. With A from the first half of the slots and B from the second, all
    :math:`2^K` sets are compared at the cost of :math:`2 \cdot 2^{K/2}` forwards. Groups with more than
    :data:`MOST_SLOTS` slots are only asked for the odd exponents of their positive generators.

    Returns:
        A basis over the integers modulo 2, smallest sets first.
    """
    if not slots:
        return []
    if len(slots) > MOST_SLOTS:
        exponents = [dict(one.exponents) for one in positive]
        odd = (np.array([found.get(slot, 0) % 2 for slot in slots]) for found in exponents)
        return [flips for flips in odd if flips.any()]
    noise = torch.randn(spec[group].shape, generator=generator, dtype=torch.float64, device=generator.device)
    drawn = torch.where(noise == noise.min(), -1.0, noise.sign())[None]
    signs = {group: drawn.to(state[slots[0].tensor].dtype.to_real())}

    def flipped(chosen: Flips) -> list[Tensor]:
        flips = Generator(group, "sign", tuple((s, 1) for s, on in zip(slots, chosen, strict=True) if on))
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


def _sets(size: int, length: int, start: int) -> Iterator[tuple[int, ...]]:
    for bits in product((0, 1), repeat=size):
        yield (0,) * start + bits + (0,) * (length - start - size)


def _basis(found: Sequence[Flips]) -> list[Flips]:
    """The smallest of the vectors that are independent modulo 2."""
    reduced: list[int] = []
    basis = []
    for flips in sorted(found, key=lambda one: (int(one.sum()), tuple(-one))):
        rest = int("".join(map(str, flips)), 2)
        for known in reduced:
            rest = min(rest, rest ^ known)
        if rest:
            reduced.append(rest)
            reduced.sort(reverse=True)
            basis.append(flips)
    return basis
