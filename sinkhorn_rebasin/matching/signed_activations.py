"""How alike units behave under the signs that suit them best, and those signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations
from sinkhorn_rebasin.activations.sites import NEITHER, ODD
from sinkhorn_rebasin.matching.weights.sign_patterns import SignPatterns
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.algebra import unit_movement


class SignedSimilarity(NamedTuple):
    """What pairs of units, (reference, target), are worth, and the number of the sign pattern that makes it so."""

    worth: Tensor
    pattern: Tensor


def best_signs(
    values: Tensor, parities: tuple[tuple[int, ...], ...], patterns: SignPatterns
) -> SignedSimilarity | None:
    r"""The similarity of each pair of units under the target unit's best signs.

    .. math:: s_{ij} = \max_p \sum_k p_k\, v_{kij}, \qquad p_k = \pm 1,

    with k over the positions that a unit holds. A position that does not change its sign with a pattern adds the
    same to all of them; one that becomes another value is left out. Where patterns are worth the same, the first is
    taken, which changes fewest signs.

    Args:
        values: similarities at each position, (width, units, units).
        parities: per sign generator and position: see :class:`~sinkhorn_rebasin.activations.sites.Site`.
        patterns: of the group.

    Returns:
        None when no position can be read.

    Example:
        >>> from sinkhorn_rebasin.permutations import Generator
        >>> one = SignPatterns((Generator("hidden", "sign", ()),))
        >>> best_signs(torch.tensor([[[-2.0]], [[0.5]]]), ((1, 0),), one)
        SignedSimilarity(worth=tensor([[2.5000]]), pattern=tensor([[1]]))
    """
    table = torch.tensor(parities or [[0] * len(values)], dtype=torch.long)
    readable = ~(table == NEITHER).any(0)
    if not bool(readable.any()):
        return None
    values, table = values[readable.to(values.device)], table[:, readable]
    worth, pattern = values.sum(0), torch.zeros(values.shape[1:], dtype=torch.long, device=values.device)
    for number, signs in enumerate(patterns.signs[1:], start=1):
        factors = torch.where(table == ODD, signs[:, None], 1.0).prod(0).to(values)
        other = (factors[:, None, None] * values).sum(0)
        better = other > worth
        worth = torch.where(better, other, worth)
        pattern = torch.where(better, number, pattern)
    return SignedSimilarity(worth, pattern)


def signs_of_matched(
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    permutations: Permutations,
    found: Mapping[str, SignedSimilarity],
) -> dict[str, Tensor]:
    """The signs ±1 of the target's units, (generators, ..., n), in their original order, of the pairs chosen."""
    signs = {}
    for name, (_, pattern) in found.items():
        patterns = SignPatterns.of(rescaling, name)
        if patterns.generators:
            units = unit_movement(spec, permutations, name).cpu()
            chosen = patterns.signs[pattern.cpu()[torch.arange(len(units)), units]]
            own = torch.ones(len(patterns.generators), len(units), dtype=torch.float64)
            own[:, units] = chosen.T
            signs[name] = own.reshape(-1, *spec[name].shape)
    return signs
