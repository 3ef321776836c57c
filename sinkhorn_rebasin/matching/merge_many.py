"""Several networks brought into the order of the first, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.given_networks import state_of
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.pair_of_states import as_states
from sinkhorn_rebasin.matching.weight_matching import weight_matching
from sinkhorn_rebasin.matching.weights.watch import Watch
from sinkhorn_rebasin.networks.architecture import single_precision
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state
from sinkhorn_rebasin.permutations.heads import with_heads, without_differing_heads


def align_many(
    networks: Sequence[nn.Module | StateLike],
    spec: PermutationSpec,
    *,
    generator: torch.Generator | None = None,
    max_rounds: int = 20,
    seconds: float | None = None,
    progress: bool = False,
) -> tuple[Alignment, ...]:
    r"""Align several networks by their weights, each to the mean of the others.

    .. math:: \max_{\pi_1, \dots, \pi_M} \sum_{p < q} \langle \pi_p(\theta_p), \pi_q(\theta_q) \rangle

    Each further network is first matched to the first. Then, in rounds of random order, each one is matched to the
    mean of all others as they stand,

    .. math:: \max_{\pi_m} \Bigl\langle \tfrac{1}{M - 1} \sum_{q \ne m} \pi_q(\theta_q),\; \pi_m(\theta_m)
        \Bigr\rangle,

    until no permutation changes. No round lowers the sum. All are then told in the order of the first, so that the
    way from p to q over r is the way from p to q.

    Args:
        networks: at least two, of one architecture, or their states; none is changed. Last layers of other shapes
            are ignored, and named in a warning.
        spec: their symmetries, from :func:`discover_symmetry`.
        generator: draws all orders; without it a fixed order of its own is used.
        max_rounds: most rounds over all networks.
        seconds: no search goes on after so many; the best so far is returned, not converged.
        progress: show a bar on standard error.

    Returns:
        One alignment a network. The first one's is the identity. Objectives are the sums after each round.

    Raises:
        ArchitectureError, SpecError: fewer than two networks, or networks that differ from each other or the spec.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3)]
        >>> alignments = align_many(nets, discover_symmetry(nets[0], torch.randn(4, 3)))
        >>> len(alignments), alignments[0].permutations["0"].tolist()
        (3, [0, 1, 2, 3, 4, 5, 6, 7])

    Source: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (2023), algorithm 3, MergeMany.
    """
    states, spec = _states(networks, spec)
    generator = generator or torch.Generator().manual_seed(0)
    watch, last = Watch(seconds), len(states)
    match = partial(weight_matching, spec=spec, generator=generator, seconds=seconds, progress=progress)
    found = [
        weight_matching(states[0], states[0], spec, start="identity", seconds=seconds, generator=generator)
    ]
    found += [match(states[0], state) for state in states[1:]]
    objective, converged = [_sum_of_products(states, found)], last == 2
    while not converged and len(objective) <= max_rounds and not watch.expired:
        converged = True
        for number in torch.randperm(last, generator=generator, device=generator.device).tolist():
            others = [_moved(states[other], found[other]) for other in range(last) if other != number]
            begin = found[number].permutations
            again = match(_mean(others), states[number], start=begin)
            converged &= all(torch.equal(again.permutations[name], begin[name]) for name in begin)
            found[number] = again
        objective.append(_sum_of_products(states, found))
    back = found[0].invert()
    done = converged and not watch.expired
    return tuple(
        replace(back.compose(each), objective=tuple(objective), converged=done, method="merge_many")
        for each in found
    )


def merge_many(
    networks: Sequence[nn.Module | StateLike],
    alignments: Sequence[Alignment],
    shares: Sequence[float] | None = None,
) -> State:
    r"""Return the mean of aligned networks.

    .. math:: \theta = \sum_m w_m\, \pi_m(\theta_m)

    Statistics of batch norm are mixed too, and then fit no network: see :func:`reset_batch_norm`. Whole numbers, and
    tensors that the alignments ignore, are the first network's.

    Args:
        networks: of one architecture, or their states.
        alignments: one a network, from :func:`align_many`.
        shares: w, one a network, adding up to 1; equal without it.

    Raises:
        ArchitectureError: not one alignment and one share a network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> alignments = align_many([net, net], discover_symmetry(net, torch.randn(4, 3)))
        >>> torch.equal(merge_many([net, net], alignments)["0.weight"], net[0].weight)
        True
    """
    shares = [1 / len(networks)] * len(networks) if shares is None else list(shares)
    if not len(networks) == len(alignments) == len(shares):
        raise ArchitectureError(
            f"Expected one alignment and one share a network but got {len(networks)} networks, {len(alignments)} "
            f"alignments and {len(shares)} shares."
        )
    states = [alignment.apply(state_of(net)) for net, alignment in zip(networks, alignments, strict=True)]
    return _mean([with_heads(state, states[0], alignments[0].spec) for state in states], shares)


def _states(
    networks: Sequence[nn.Module | StateLike], spec: PermutationSpec
) -> tuple[list[State], PermutationSpec]:
    """Read all states, with the ignored tensors of the first, and what the spec ignores besides."""
    if len(networks) < 2:
        raise ArchitectureError(f"Expected at least two networks to merge but got {len(networks)}.")
    given = [state_of(network, "network", spec.shapes) for network in networks]
    spec = without_differing_heads(spec, given, stacklevel=3)
    pairs = [as_states(given[0], each, spec) for each in given[1:]]
    states = [pairs[0].reference, *(pair.target for pair in pairs)]
    return [with_heads(state, states[0], spec) for state in states], spec


def _moved(state: State, alignment: Alignment) -> State:
    return permute_state(state, alignment.spec, alignment.permutations)


def _mean(states: Sequence[StateLike], shares: Sequence[float] | None = None) -> State:
    shares = [1 / len(states)] * len(states) if shares is None else shares
    return {name: _mixed([state[name] for state in states], shares) for name in states[0]}


def _mixed(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    first = tensors[0]
    if not (first.is_floating_point() or first.is_complex()):
        return first.clone()
    wide = single_precision(first) * shares[0]
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        wide = wide + single_precision(tensor).to(wide.device) * share
    return wide.to(first.dtype)


def _sum_of_products(states: Sequence[State], found: Sequence[Alignment]) -> float:
    r""":math:`\sum_{p<q} \langle \theta_p, \theta_q \rangle = (\lVert \sum_p \theta_p \rVert^2 - \sum_p \lVert
    \theta_p \rVert^2) / 2`."""
    moved: list[Mapping[str, Tensor]] = [_moved(*pair) for pair in zip(states, found, strict=True)]
    total = 0.0
    for name in found[0].spec.compared:
        each = [state[name].double() for state in moved if state[name].is_floating_point()]
        if each:
            together = torch.stack(each).sum(0).square().sum()
            total += float(together - sum(tensor.square().sum() for tensor in each)) / 2
    return total
