"""TransFusion, our own implementation: heads are paired by spectra, then units inside of paired heads.

Source: Filippo Rinaldi and others, "Update Your Transformer to the Latest Release: Re-Basin of Task Vectors" (2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import sinkhorn_rebasin as sr
from experiments.carry.bench import Bench
from sinkhorn_rebasin.permutations import PermutationSpec, identity_permutations, permute_state


def transfusion_update(bench: Bench) -> dict[str, Tensor]:
    """Carry the update by heads paired by their spectra and, heads held, weight matching of all other units."""
    pair = bench.pair
    spec = sr.discover_symmetry(pair.base, bench.examples)
    heads = paired_heads(pair.new_base, pair.base, spec)
    base, tuned = (
        permute_state(dict(network.state_dict()), spec, {**identity_permutations(spec), **heads})
        for network in (pair.base, pair.tuned)
    )
    inside = spec.without(*heads) if heads else spec
    generator = torch.Generator().manual_seed(bench.seed)
    alignment = sr.weight_matching(pair.new_base, base, inside, restarts=5, generator=generator)
    before, after = alignment.apply(base), alignment.apply(tuned)
    return {name: after[name] - before[name] for name, _ in pair.base.named_parameters()}


def paired_heads(reference: nn.Module, target: nn.Module, spec: PermutationSpec) -> dict[str, Tensor]:
    r"""Pair heads by what no change inside of a head moves.

    .. math:: d_{ij} = \sum_{W} \lVert \sigma(W_i^R) - \sigma(W_j^T) \rVert_2

    over the projections of queries, keys, values and outputs, with σ the singular values of a head's part.
    """
    states = reference.state_dict(), target.state_dict()
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(group.parent for group in spec.groups if group.parent is not None):
        first, second = (_spectra(state, spec, name) for state in states)
        cost = sum(torch.cdist(first[key], second[key]) for key in first)
        assert isinstance(cost, Tensor)
        found[name] = torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
    return found


def _spectra(state: Mapping[str, Tensor], spec: PermutationSpec, name: str) -> dict[str, Tensor]:
    """Return, for each projection, the singular values of every head's part, (heads, values).

    A head's part is what is left when a matrix in the place of a permutation keeps this head alone; inner groups say
    which part of a packed projection is which.
    """
    heads = spec[name].size
    spectra: dict[str, list[Tensor]] = {}
    for inner in (group for group in spec.groups if group.parent == name):
        alone = replace(inner, parent=None)
        slots = [slot for slot in spec.slots_of(inner.name) if len(spec.shapes[slot.tensor]) > 1]
        for head in range(heads):
            kept = torch.zeros(heads, inner.size, inner.size)
            kept[head] = torch.eye(inner.size)
            for number, slot in enumerate(slots):
                whole = state[slot.tensor].float()
                single = PermutationSpec((alone,), (slot,), {slot.tensor: tuple(whole.shape)})
                only = permute_state({slot.tensor: whole}, single, {inner.name: kept})[slot.tensor]
                none = permute_state({slot.tensor: whole}, single, {inner.name: 0 * kept})[slot.tensor]
                part = (only - none).movedim(slot.axes[0], 0).flatten(1)
                values = torch.linalg.svdvals(part)[: inner.size]
                spectra.setdefault(f"{inner.name} {slot.tensor} {number}", []).append(values)
    return {key: torch.stack(values) for key, values in spectra.items()}
