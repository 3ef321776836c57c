"""How alike units behave under the signs that suit them best, and those signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import Permutations, State
from sinkhorn_rebasin.activations.sites import NEITHER, ODD
from sinkhorn_rebasin.matching.weights.nested_groups import flips_of
from sinkhorn_rebasin.matching.weights.similarity import signed_similarity
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, rescale_state
from sinkhorn_rebasin.permutations.algebra import block_movement, unit_movement
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns


class SignedSimilarity(NamedTuple):
    """What pairs of units are worth under their best signs.

    Attributes:
        worth: of each pair, (reference, target).
        pattern: the number of the sign pattern that makes it so, (reference, target).
        hidden: the numbers of the patterns that change nothing of what is read.
    """

    worth: Tensor
    pattern: Tensor
    hidden: tuple[int, ...] = (0,)


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
        >>> from sinkhorn_rebasin.permutations import ScaleSymmetry
        >>> one = SignPatterns((ScaleSymmetry("hidden", "sign", ()),))
        >>> best_signs(torch.tensor([[[-2.0]], [[0.5]]]), ((1, 0),), one)
        SignedSimilarity(worth=tensor([[2.5000]]), pattern=tensor([[1]]), hidden=(0,))
    """
    table = torch.tensor(parities or [[0] * len(values)], dtype=torch.long, device="cpu")
    readable = ~(table == NEITHER).any(0)
    if not bool(readable.any()):
        return None
    values, table = values[readable.to(values.device)], table[:, readable]
    worth, pattern = values.sum(0), torch.zeros(values.shape[1:], dtype=torch.long, device=values.device)
    hidden = [0]
    for number, signs in enumerate(patterns.signs[1:], start=1):
        factors = torch.where(table == ODD, signs[:, None], 1.0).prod(0).to(values)
        other = (factors[:, None, None] * values).sum(0)
        if bool((factors == 1).all()):
            hidden.append(number)
        better = other > worth
        worth = torch.where(better, other, worth)
        pattern = torch.where(better, number, pattern)
    return SignedSimilarity(worth.cpu(), pattern.cpu(), tuple(hidden))


def signs_of_matched(
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    permutations: Permutations,
    found: Mapping[str, SignedSimilarity],
) -> dict[str, Tensor]:
    """The signs ±1 of the target's units, (generators, ..., n), in their original order, of the pairs chosen."""
    signs = {}
    for name, one in found.items():
        patterns = SignPatterns.of(rescaling, name)
        if patterns.generators:
            units = unit_movement(spec, permutations, name).cpu()
            chosen = patterns.signs[one.pattern[torch.arange(len(units), device="cpu"), units]]
            own = torch.ones(len(patterns.generators), len(units), dtype=torch.float64, device="cpu")
            own[:, units] = chosen.T
            signs[name] = own.reshape(-1, *spec[name].shape)
    return signs


def with_hidden_signs(
    states: tuple[State, State],
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    permutations: Permutations,
    signs: Mapping[str, Tensor],
    found: Mapping[str, SignedSimilarity],
) -> dict[str, Tensor]:
    """The signs with those that nothing read shows chosen by the weights, group by group, all else held."""
    chosen = dict(signs)
    for name, one in found.items():
        if len(one.hidden) == 1 or spec.children(name):
            continue
        group, patterns = spec[name], SignPatterns.of(rescaling, name)
        held = signed_state(states[1], spec, rescaling, chosen)
        standing = Standing(states[0], held, spec, permutations, rescaling=rescaling)
        worth = signed_similarity(standing, group)
        blocks = block_movement(spec, permutations, group)
        units = permutations[name].reshape(group.blocks, group.size).cpu()[blocks]
        own = worth[list(one.hidden)].gather(-1, units.expand(len(one.hidden), -1, -1)[..., None]).squeeze(-1)
        best = torch.tensor(one.hidden, device="cpu")[own.argmax(0)]
        chosen[name] = chosen[name] * flips_of(patterns, best, blocks, units).reshape(-1, *group.shape)
    return chosen


def signed_state(
    state: State, spec: PermutationSpec, rescaling: RescalingSpec, signs: Mapping[str, Tensor]
) -> State:
    """The state with these signs, in its own types."""
    moved = rescale_state(state, spec, rescaling, signs=signs)
    return {name: tensor.to(state[name].dtype) for name, tensor in moved.items()}
