"""Activation matching: units that do the same on the same data belong together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, StateLike
from sinkhorn_rebasin.activations.statistics import paired_moments
from sinkhorn_rebasin.assignment import hard_assignment
from sinkhorn_rebasin.errors import DataError, RebasinWarning, SpecError
from sinkhorn_rebasin.matching.base import Alignment, as_network, as_states, comparable_states
from sinkhorn_rebasin.matching.signed_activations import (
    best_signs,
    signed_state,
    signs_of_matched,
    with_hidden_signs,
)
from sinkhorn_rebasin.matching.weight_matching import match_remaining
from sinkhorn_rebasin.permutations import Group, PermutationSpec, RescalingSpec, identity_permutations
from sinkhorn_rebasin.permutations.algebra import block_movement
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING
from sinkhorn_rebasin.permutations.sign_patterns import SignPatterns


def activation_matching(
    reference: nn.Module | StateLike,
    target: nn.Module | StateLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    rescaling: RescalingSpec | None = None,
    generator: torch.Generator | None = None,
    similarity: Literal["correlation", "uncentred"] = "correlation",
    batch: BatchAdapter | None = None,
) -> Alignment:
    r"""Match units that behave alike on data.

    Maximise how alike the matched units of both networks behave on data, every group for itself.

    .. math:: \max_\pi \sum_i s\bigl(x_i, y_{\pi(i)}\bigr), \qquad
        s = \operatorname{corr}(x_i, y_j) \ \text{or}\ \tfrac1N \textstyle\sum_n x_{in} y_{jn}

    with x_i the values of unit i of the reference and y_j those of unit j of the target, over samples and pixels
    or tokens. They are read, before the activation function, at the output of the linear, embedding, convolution
    or norm layer that runs last among those whose own tensors carry the group. Groups that no such layer shows, as
    those of recurrent layers and cells of bare parameters, are read at the last operation of the network whose result
    holds their units, at every step, in each layer and direction. Nested groups are chosen together with the blocks
    they live in. Both networks run in eval mode, in one pass over the data; for groups that are read at operations,
    the reference runs once or twice more on every batch, and every result of the first batch is held in memory.

    What nothing shows (packed attention), or was not seen as often in both networks (experts), is weight matched with
    the others held, named in a :class:`RebasinWarning`, and in :attr:`Alignment.weight_matched`.

    Units whose sign is free (tanh, recurrent cells) are matched up to their sign when ``rescaling`` says which they
    are. A pair of units is worth the most over the signs: the absolute value of the similarity of what changes its
    sign with the unit, added to the similarity of what does not (the gates of a cell). The alignment then holds the
    signs too. A sign that what is read does not show is chosen by the weights.

    Args:
        reference, target: networks of one architecture, one of them at least a module; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data: batches of (inputs, labels) or of inputs alone.
        rescaling: from :func:`discover_rescaling`: its sign generators are used.
        generator: draws the order of the groups that are weight matched.
        similarity: ``"correlation"``, or ``"uncentred"`` products.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Complexity: per sample and group of n units O(n²), then O(n³) for the assignment. Use it when data are at
    hand and the networks were trained on different data or far apart, where weights say little. Units that are
    constant on the data cannot be told apart, and few samples tell few units apart.

    Raises:
        ArchitectureError, SpecError: when the networks differ, the spec is of another one, or the similarity unknown.
        DataError: without a batch.

    Example:
        >>> from sinkhorn_rebasin.permutations import inverse, permute_state, random_permutations
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net, x = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2)), torch.randn(64, 5)
        >>> spec = discover_symmetry(net, x)
        >>> planted = random_permutations(spec)
        >>> target = permute_state(net.state_dict(), spec, planted)
        >>> found = activation_matching(net, target, spec, data=[x]).permutations
        >>> torch.equal(found["0"], inverse(spec, planted)["0"])
        True

    Sources: correlation: Li, Yosinski, Clune, Lipson, Hopcroft, "Convergent learning" (2016); Tatro et al.,
    "Optimizing mode connectivity via neuron alignment" (2020); uncentred: Ainsworth, Hayase, Srinivasa, "Git
    Re-Basin" (2023).
    """
    first, second = as_states(reference, target, spec)
    if similarity not in ("correlation", "uncentred"):
        raise SpecError(f"Expected similarity to be 'correlation' or 'uncentred' but got {similarity!r}.")
    if data is None:
        raise DataError("Expected data, batches of inputs to see activations on, but got None.")
    nested = {
        (group.parent, slot.tensor)
        for group in spec.groups
        if group.parent is not None
        for slot in spec.slots_of(group.name)
    }
    rescaling = rescaling or NO_RESCALING
    network = as_network(reference, target)
    seen = paired_moments(
        network, first, second, spec, data, skipped=nested, rescaling=rescaling, batch=batch
    )
    found = {}
    for name, (site, moments) in seen.items():
        values = moments.correlations() if similarity == "correlation" else moments.products()
        signed = best_signs(values, site.parities, SignPatterns.of(rescaling, name))
        if signed is not None:
            found[name] = signed
    permutations, decided, total = _assign_all(spec, {name: one.worth for name, one in found.items()})
    found = {name: one for name, one in found.items() if name in decided}
    signs = signs_of_matched(spec, rescaling, permutations, found)
    states = comparable_states(first, second, spec)
    signs = with_hidden_signs(states, spec, rescaling, permutations, signs, found)
    remaining = tuple(name for name in spec.names if name not in decided)
    if remaining:
        _warn_of(spec, remaining)
        generator = generator or torch.Generator().manual_seed(0)
        held = signed_state(second, spec, rescaling, signs)
        rest = match_remaining(first, held, spec, permutations, remaining, generator, rescaling=rescaling)
        permutations = dict(rest.permutations)
        signs = {**rest.signs, **signs}
    return Alignment(
        permutations,
        spec,
        (total,),
        weight_matched=remaining,
        signs=signs,
        rescaling=rescaling if signs else None,
        method="activation_matching",
    )


def _warn_of(spec: PermutationSpec, names: Iterable[str]) -> None:
    """Name the groups whose units cannot be seen; a single unit has no order to match."""
    several = [name for name in names if spec[name].units > 1]
    if several:
        warnings.warn(
            f"Expected to see the units of every group at work, as often in both networks, but no layer or operation "
            f"shows those of {several}: they are matched by their weights. Drop them with spec.without(...) to leave "
            f"them as they are, or give data that reaches them.",
            RebasinWarning,
            stacklevel=3,
        )


def _assign_all(spec: PermutationSpec, alike: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str], float]:
    """Assign all groups that have a similarity.

    Permutations of all groups with a similarity (units, units), their names, and the sum of what was matched.
    """
    permutations, decided, total = identity_permutations(spec), set[str](), 0.0
    for group in spec.groups:
        children = [
            child
            for child in spec.children(group.name)
            if child.name in alike and child.blocks == group.units and group.parent is None
        ]
        if group.name in decided or not (children or group.name in alike):
            continue
        if group.parent is not None and group.parent not in decided:
            continue  # weight matched together with the blocks it lives in
        if children:
            chosen, value = _assign_blocks(group, children, alike)
        else:
            chosen, value = _assign_inside(
                group, alike[group.name], block_movement(spec, permutations, group)
            )
        permutations.update(chosen)
        decided |= chosen.keys()
        total += value
    return permutations, decided, total


def _assign_inside(group: Group, alike: Tensor, origin: Tensor) -> tuple[dict[str, Tensor], float]:
    """Assign units inside each block.

    The best permutation inside each block, given which block of the target stands at each place.
    """
    pairs = _by_blocks(group, alike)[torch.arange(group.blocks, device="cpu"), origin]
    best = hard_assignment(pairs)
    found = torch.empty_like(best)
    found[origin] = best
    return {group.name: found.reshape(group.shape)}, float(pairs.gather(-1, best[..., None]).sum())


def _assign_blocks(
    group: Group, children: list[Group], alike: dict[str, Tensor]
) -> tuple[dict[str, Tensor], float]:
    """Assign blocks together with their contents.

    Whole blocks and what is inside them, chosen together: a pair of blocks is worth the best inside of it.
    """
    worth = alike.get(group.name, torch.zeros(group.size, group.size, dtype=torch.float64, device="cpu"))
    inside = {}
    for child in children:
        pairs = _by_blocks(child, alike[child.name])
        inside[child.name] = hard_assignment(pairs)
        worth = worth + pairs.gather(-1, inside[child.name][..., None]).squeeze(-1).sum(-1)
    blocks = hard_assignment(worth)
    chosen = {group.name: blocks.reshape(group.shape)}
    places = torch.arange(group.size, device="cpu")
    for child in children:
        found = torch.empty(child.blocks, child.size, dtype=torch.long, device="cpu")
        found[blocks] = inside[child.name][places, blocks]
        chosen[child.name] = found.reshape(child.shape)
    return chosen, float(worth[places, blocks].sum())


def _by_blocks(group: Group, alike: Tensor) -> Tensor:
    """Split similarities by pairs of blocks.

    Similarities for every pair of blocks, (blocks, blocks, size, size).
    """
    return alike.reshape(group.blocks, group.size, group.blocks, group.size).permute(0, 2, 1, 3)
