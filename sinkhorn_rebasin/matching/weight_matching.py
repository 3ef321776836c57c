"""Weight matching: permutations that bring the weights of two networks closest, by coordinate descent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import Permutations, State, StateLike
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.base import Alignment, as_states
from sinkhorn_rebasin.matching.nested_groups import children_of, propose_blocks
from sinkhorn_rebasin.matching.similarity import unit_similarity
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import (
    Group,
    PermutationSpec,
    check_permutations,
    identity_permutations,
)
from sinkhorn_rebasin.permutations.action import permute_tensor
from sinkhorn_rebasin.permutations.algebra import block_movement


def weight_matching(
    reference: nn.Module | StateLike,
    target: nn.Module | StateLike,
    spec: PermutationSpec,
    *,
    generator: torch.Generator | None = None,
    max_passes: int = 100,
    restarts: int = 1,
    start: Literal["invariants", "identity"] | Permutations = "invariants",
) -> Alignment:
    r"""Maximise the inner product of the reference's and the rebased target's parameters.

    .. math:: \max_\pi \langle \theta_R, \pi(\theta_T) \rangle,
        \qquad \text{equivalently}\quad \min_\pi \lVert \theta_R - \pi(\theta_T) \rVert^2

    One group after the other, in random order, is assigned exactly with all others held, until no group
    changes. All parameters of the spec count: weights, biases and norm parameters, tied ones once; buffers do
    not. The result is a local optimum that depends on the order of the groups and on the start. From
    ``"invariants"`` every group is first matched by what no order of the groups still to come can change, their
    weights sorted: a planted permutation is then usually found at once, and networks trained apart end closer. From
    ``"identity"``, as published, the first groups are matched through neighbours whose order has nothing to do
    with the reference's.

    Args:
        reference, target: networks of one architecture, or their states; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        generator: draws the order of the groups; without it a fixed order of its own is used.
        max_passes: most passes over all groups.
        restarts: how many orders to try; the alignment with the largest inner product is returned.
        start: what the first pass begins with; permutations to go on from are welcome.

    Complexity: per pass, for a group of n units whose slots hold N elements, O(n N) for the products and
    O(n³) for the assignment. Use it as a baseline, and as the start of the Sinkhorn methods.

    Raises:
        ArchitectureError, SpecError: when the networks differ, the spec is of another one, or the start unknown.

    Example:
        >>> from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> spec = discover_symmetry(net, torch.randn(3, 5))
        >>> planted = random_permutations(spec)
        >>> target = permute_state(net.state_dict(), spec, planted)
        >>> found = weight_matching(net, target, spec).permutations
        >>> torch.equal(found["0"], inverse(spec, planted)["0"])
        True

    Source: Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries" (2023).
    """
    generator = generator or torch.Generator().manual_seed(0)
    first, second = as_states(reference, target, spec)
    if isinstance(start, str) and start not in ("invariants", "identity"):
        raise SpecError(f"Expected start to be 'invariants', 'identity' or permutations but got {start!r}.")
    begin = identity_permutations(spec) if isinstance(start, str) else dict(start)
    check_permutations(spec, begin)
    runs = []
    for _ in range(max(1, restarts)):
        permutations = dict(begin)
        if start == "invariants":
            permutations = _first_guess(first, second, spec, permutations, generator, spec.groups)
        runs.append(_descend(first, second, spec, permutations, generator, max_passes, spec.groups))
    return max(runs, key=lambda alignment: alignment.objective[-1] if alignment.objective else 0.0)


def match_remaining(
    reference: State,
    target: State,
    spec: PermutationSpec,
    permutations: Permutations,
    names: Collection[str],
    generator: torch.Generator,
    max_passes: int = 100,
) -> dict[str, Tensor]:
    """The permutations with those of the named groups chosen by weight matching, all others held.

    A named group that has groups nested in it must be named together with all of them.
    """
    groups = [group for group in spec.groups if group.name in names]
    guess = _first_guess(reference, target, spec, dict(permutations), generator, groups)
    return dict(_descend(reference, target, spec, guess, generator, max_passes, groups).permutations)


def _descend(
    reference: State,
    target: State,
    spec: PermutationSpec,
    permutations: dict[str, Tensor],
    generator: torch.Generator,
    max_passes: int,
    groups: Sequence[Group],
) -> Alignment:
    objective: list[float] = []
    converged = not groups
    while not converged and len(objective) < max_passes:
        improved = False
        for index in torch.randperm(len(groups), generator=generator, device=generator.device).tolist():
            improved |= _assign(reference, target, spec, groups[index], permutations)
        objective.append(_objective(reference, target, spec, permutations, spec.shapes))
        converged = not improved
    return Alignment(permutations, spec, tuple(objective), converged)


def _first_guess(
    reference: State,
    target: State,
    spec: PermutationSpec,
    identity: dict[str, Tensor],
    generator: torch.Generator,
    groups: Sequence[Group],
) -> dict[str, Tensor]:
    """These groups assigned once, in random order, those still to come seen through their invariants alone.

    Networks that are already closer as they are, such as two that were tuned from one, stay as they are.
    """
    permutations, unknown = dict(identity), {group.name for group in groups}
    drawn = torch.randperm(len(groups), generator=generator, device=generator.device).tolist()
    order = [groups[index] for index in drawn]
    while order:
        group = next(one for one in order if one.parent not in unknown)
        children = children_of(spec, group)
        if group.parent is None and children:
            permutations = propose_blocks(reference, target, spec, group, permutations, unknown)
        else:
            similarity = unit_similarity(reference, target, spec, group, permutations, unknown)
            found = torch.empty(group.blocks, group.size, dtype=torch.long, device="cpu")
            found[block_movement(spec, permutations, group)] = hard_assignment(similarity).cpu()
            permutations[group.name], children = found.reshape(group.shape), []
        done = {group.name, *(child.name for child in children)}
        unknown -= done
        order = [one for one in order if one.name not in done]
    return max(
        (identity, permutations), key=lambda found: _objective(reference, target, spec, found, spec.shapes)
    )


def _assign(
    reference: State, target: State, spec: PermutationSpec, group: Group, permutations: dict[str, Tensor]
) -> bool:
    """Replace a group's permutation by the best one while the others are held; False when nothing is gained."""
    if group.parent is None and children_of(spec, group):
        return _assign_blocks(reference, target, spec, group, permutations)
    similarity = unit_similarity(reference, target, spec, group, permutations)
    origin = block_movement(spec, permutations, group)
    current = permutations[group.name].reshape(group.blocks, group.size)[origin]
    best = hard_assignment(similarity)
    gain = _value(similarity, best) - _value(similarity, current)
    if not gain > 1e-9 * similarity.abs().sum():
        return False
    found = torch.empty_like(best)
    found[origin] = best
    proposal = {**permutations, group.name: found.reshape(group.shape)}
    tensors = [slot.tensor for slot in spec.slots_of(group.name)]
    if len(set(tensors)) < len(tensors):
        # The group stands on two axes of one tensor: the product is quadratic and the gain only its slope.
        before = _objective(reference, target, spec, permutations, tensors)
        after = _objective(reference, target, spec, proposal, tensors)
        if not after - before > 1e-9 * float(similarity.abs().sum()):
            return False
    permutations[group.name] = proposal[group.name]
    return True


def _assign_blocks(
    reference: State, target: State, spec: PermutationSpec, group: Group, permutations: dict[str, Tensor]
) -> bool:
    """Replace the permutation of whole blocks and those inside them when all in all they gain."""
    proposal = propose_blocks(reference, target, spec, group, permutations)
    groups = [group, *children_of(spec, group)]
    tensors = {slot.tensor for one in groups for slot in spec.slots_of(one.name)}
    before = _objective(reference, target, spec, permutations, tensors)
    after = _objective(reference, target, spec, proposal, tensors)
    if not after - before > 1e-9 * abs(after):
        return False
    permutations.update({one.name: proposal[one.name] for one in groups})
    return True


def _value(similarity: Tensor, indices: Tensor) -> Tensor:
    return similarity.gather(-1, indices[..., None]).sum()


def _objective(
    reference: State,
    target: State,
    spec: PermutationSpec,
    permutations: dict[str, Tensor],
    names: Iterable[str],
) -> float:
    total = 0.0
    for name in sorted(set(names) & spec.parameters.keys()):
        moved = permute_tensor(target[name], spec.slots_on(name), permutations)
        total += float((real_view(reference[name]).double() * real_view(moved).double()).sum())
    return total
