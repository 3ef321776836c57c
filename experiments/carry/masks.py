"""Masks of few weights: the old base's carried, the new base's own, and a random one, then the same tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

import sinkhorn_rebasin as sr
from experiments.carry.bench import Bench, Tried
from sinkhorn_rebasin.networks.copying import standalone_copy

STEPS, RATES = 300, (1e-3, 3e-3)


def carried_mask(bench: Bench) -> dict[str, Tensor]:
    """Return the mask of the old base's largest weights, in the new base's coordinates."""
    pair = bench.pair
    spec = sr.discover_symmetry(pair.base, bench.examples)
    generator = torch.Generator().manual_seed(bench.seed)
    alignment = sr.weight_matching(pair.new_base, pair.base, spec, restarts=5, generator=generator)
    return alignment.carry(_largest(dict(pair.base.named_parameters()), _sparsity(bench)), "mask")


def own_mask(bench: Bench) -> dict[str, Tensor]:
    """Return the mask of the new base's largest weights."""
    return _largest(dict(bench.pair.new_base.named_parameters()), _sparsity(bench))


def uncarried_mask(bench: Bench) -> dict[str, Tensor]:
    """Return the mask of the old base's largest weights as it is."""
    return _largest(dict(bench.pair.base.named_parameters()), _sparsity(bench))


def random_mask(bench: Bench) -> dict[str, Tensor]:
    """Return a mask of weights that are drawn, as many of each layer as in the old base's."""
    draw = torch.Generator().manual_seed(bench.seed)
    masks = uncarried_mask(bench)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=draw)].view_as(mask)
        for name, mask in masks.items()
    }


def masked(mask: Callable[[Bench], Mapping[str, Tensor]]) -> Callable[[Bench], Iterable[Tried]]:
    """Tune the masked new base on 1,000 labelled samples of the new task at several rates."""

    def tried(bench: Bench) -> Iterator[Tried]:
        kept, samples = mask(bench), bench.labelled(1000)
        for rate in RATES:
            network = standalone_copy(bench.pair.new_base).requires_grad_(True)
            weights = dict(network.named_parameters())
            adam = torch.optim.Adam(network.parameters(), rate)
            draw = torch.Generator().manual_seed(bench.seed)
            _masked(weights, kept)
            for step in range(STEPS):
                adam.param_groups[0]["lr"] = rate * (1 - step / STEPS)
                picked = torch.randint(len(samples[1]), (64,), generator=draw)
                loss = F.cross_entropy(network(samples[0][picked]), samples[1][picked])
                adam.zero_grad()
                loss.backward()
                adam.step()
                _masked(weights, kept)
            yield {"rate": rate}, network.eval()

    return tried


@torch.no_grad()
def _masked(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    for name, kept in mask.items():
        weights[name].mul_(kept)


def _largest(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Keep the largest entries of every matrix."""
    masks = {}
    for name, weight in weights.items():
        if weight.ndim > 1:
            size = weight.detach().abs().flatten()
            count = int(sparsity * size.numel())
            masks[name] = weight.detach().abs() > size.kthvalue(count).values
    return masks


def _sparsity(bench: Bench) -> float:
    assert bench.setting.sparsity is not None
    return bench.setting.sparsity


MASKS: dict[str, Callable[[Bench], Mapping[str, Tensor]]] = {
    "mask carried": carried_mask,
    "mask as it is": uncarried_mask,
    "mask drawn": random_mask,
    "mask of the new base": own_mask,
}
