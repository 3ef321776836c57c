"""Activation matching: units that do the same on the same data belong together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, NetworkLike, Permutations
from sinkhorn_rebasin.activations.statistics import paired_moments
from sinkhorn_rebasin.errors import DataError, RebasinWarning, SpecError
from sinkhorn_rebasin.matching.activation_assignment import Seen, assign_seen
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.pair_of_states import as_network, as_states
from sinkhorn_rebasin.matching.rotations.turned_streams import TurnedStreams
from sinkhorn_rebasin.matching.rotations.turned_weights import TurnedWeights
from sinkhorn_rebasin.matching.signed_activations import signed_state
from sinkhorn_rebasin.matching.weight_matching import match_remaining
from sinkhorn_rebasin.matching.weights.beginning import beginning
from sinkhorn_rebasin.matching.weights.standing import Standing
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, check_continuous
from sinkhorn_rebasin.permutations.rescaling import NO_RESCALING, check_rescaling


def activation_matching(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    rescaling: RescalingSpec | None = None,
    generator: torch.Generator | None = None,
    similarity: Literal["correlation", "uncentred"] = "correlation",
    batch: BatchAdapter | None = None,
    symmetry: ContinuousSpec | None = None,
    start: Permutations | Alignment | None = None,
    ignore: Sequence[str] = (),
) -> Alignment:
    r"""Maximise how alike matched units behave on data.

    Every group is matched for itself:

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

    Groups with a continuous symmetry are turned instead, when ``symmetry`` says which they are. A stream is turned by
    the polar factor of its products,

    .. math:: \sum_k \frac{\sum_n x^k_n y^{k\top}_n}{\sqrt{\sum_n |x^k_n|^2 \sum_n |y^k_n|^2}},

    over the norms whose output shows it, or over all layers where no norm does. Maps inside heads, and the order of
    such heads, are then matched by weights: see :func:`weight_matching`, and what it asks of the networks.

    Args:
        reference, target: networks of one architecture, as modules, states or paths; one of them is a
            module. Neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data: batches of (inputs, labels) or of inputs alone.
        rescaling: from :func:`discover_rescaling`: its sign generators are used.
        generator: draws the order of the groups that are weight matched.
        similarity: ``"correlation"``, or ``"uncentred"`` products.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        symmetry: from :func:`discover_continuous`. The alignment then has maps.
        start: what the groups that activations do not decide begin with: permutations or an :class:`Alignment`, with
            the maps of ``symmetry``. They are matched by weights from there; None: from what weights show at once.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.

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
    first, second, spec = as_states(reference, target, spec, ignore)
    if similarity not in ("correlation", "uncentred"):
        raise SpecError(f"Expected similarity to be 'correlation' or 'uncentred' but got {similarity!r}.")
    if data is None:
        raise DataError("Expected data, batches of inputs to see activations on, but got None.")
    network, generator = as_network(reference, target), generator or torch.Generator().manual_seed(0)
    rescaling = NO_RESCALING if rescaling is None else rescaling
    check_rescaling(rescaling)
    if symmetry is not None:
        check_continuous(symmetry)
    begin = None if start is None else beginning(start, spec, rescaling, symmetry)
    standing = Standing(first, second, spec, {}, rescaling=rescaling)
    if symmetry is not None:
        streams = TurnedStreams(TurnedWeights(standing, symmetry), network, begin)
        seen = _seen(network, streams.visible, data, batch)
        streams.look(seen)
        matched = assign_seen(streams.discrete, seen, similarity)
        unseen = [name for name in streams.discrete.spec.names if name not in matched.decided]
        _warn_of(spec, [*unseen, *streams.unseen])
        return streams.completed(matched, generator).named("activation_matching")
    matched = assign_seen(standing, _seen(network, standing, data, batch), similarity)
    permutations, signs = matched.permutations, matched.signs
    remaining = tuple(name for name in spec.names if name not in matched.decided)
    if remaining:
        _warn_of(spec, remaining)
        held = signed_state(second, spec, standing.rescaling, signs)
        rest = match_remaining(
            first, held, spec, permutations, remaining, generator, rescaling=rescaling, begin=begin
        )
        permutations = dict(rest.permutations)
        signs = {**rest.signs, **signs}
    return Alignment(
        permutations,
        spec,
        (matched.total,),
        weight_matched=remaining,
        signs=signs,
        rescaling=standing.rescaling if signs else None,
        method="activation_matching",
    )


def _seen(network: nn.Module, standing: Standing, data: Iterable[Any], batch: BatchAdapter | None) -> Seen:
    """Run both networks and watch their units.

    A block is not read where units nested in it are.
    """
    spec = standing.spec
    nested = {
        (group.parent, slot.tensor)
        for group in spec.groups
        if group.parent is not None
        for slot in spec.slots_of(group.name)
    }
    return paired_moments(
        network,
        standing.reference,
        standing.target,
        spec,
        data,
        skipped=nested,
        rescaling=standing.rescaling,
        batch=batch,
    )


def _warn_of(spec: PermutationSpec, names: Iterable[str]) -> None:
    """Warn of groups whose units cannot be seen.

    A single unit has no order to match.
    """
    several = [name for name in names if spec[name].units > 1]
    if several:
        warnings.warn(
            f"Expected to see the units of every group at work, as often in both networks, but no layer or operation "
            f"shows those of {several}: they are matched by their weights. Drop them with spec.without(...) to leave "
            f"them as they are, or give data that reaches them.",
            RebasinWarning,
            stacklevel=3,
        )
