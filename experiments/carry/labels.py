"""Few labels: tuned from the carried start, and from the new base, with the same samples and steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from experiments.carry.bench import BATCH, Bench, Tried, tuned_on
from experiments.carry.methods import carried
from experiments.models.training import augmented
from sinkhorn_rebasin.carrying import Learned

STARTS = (0.75, 1.0)
FEW = 200


def from_new_base(count: int) -> Callable[[Bench], Iterable[Tried]]:
    """Tune the new base at several rates."""

    def tried(bench: Bench) -> Iterator[Tried]:
        yield from _tuned(bench, count, {"new base": bench.pair.new_base})

    return tried


def from_carried(count: int) -> Callable[[Bench], Iterable[Tried]]:
    """Tune what the update was carried to by looking at the samples themselves, or at the base task's."""

    def tried(bench: Bench) -> Iterator[Tried]:
        few = count < FEW and bench.setting.data == "mnist"
        options = {"data": bench.base_batches()} if few else looked_at(bench, count)
        learned = bench.setting.labels.way == "learned"
        data = {"base data" if few else "the samples": options}
        if bench.setting.labels.beside and not few:
            data["the samples and base data"] = {"data": mixed(bench, count)}
        starts: dict[str, nn.Module] = {}
        for looked, options in data.items():
            update = carried(bench, Learned() if learned else None, **options)
            for scale in STARTS[-1:] if learned else STARTS:  # what was learned has its scale
                starts[f"carried with {looked}, scale {scale:g}"] = update.apply(bench.pair.new_base, scale)
        yield from _tuned(bench, count, starts)

    return tried


def looked_at(bench: Bench, count: int) -> dict[str, Any]:
    """Return the samples in batches as data; copies that are held out are of other samples than the rest."""
    copies = bench.setting.labels.copies
    inputs = bench.labelled(count)[0]
    if copies == 1:
        return {"data": list(inputs.split(max(1, count // 5)))}
    kept = copied(inputs[: -(count // 10)], copies, bench.seed)
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(bench.seed))
    held_out = copied(inputs[-(count // 10) :], copies, bench.seed)
    return {"data": list(kept[order].split(count)), "validation": [held_out]}


def mixed(bench: Bench, count: int) -> list[Tensor]:
    """Return samples of the base task and half as many of the new one, which are repeated, in batches."""
    inputs, base = bench.labelled(count)[0], torch.cat(bench.base_batches())
    together = torch.cat([base, inputs.repeat(max(1, len(base) // (2 * count)), *[1] * (inputs.ndim - 1))])
    order = torch.randperm(len(together), generator=torch.Generator().manual_seed(bench.seed))
    return list(together[order].split(BATCH))


def copied(inputs: Tensor, copies: int, seed: int) -> Tensor:
    """Return inputs as they are, and so many in all that are shifted and mirrored."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.cat([inputs, *(augmented(inputs) for _ in range(copies - 1))])


def _tuned(bench: Bench, count: int, starts: dict[str, nn.Module]) -> Iterator[Tried]:
    few = bench.setting.labels
    inputs, labels = bench.labelled(count)
    shape = (few.copies, *[1] * (labels.ndim - 1))
    samples = copied(inputs, few.copies, bench.seed), labels.repeat(shape)
    for name, start in starts.items():
        for rate in few.rates:
            if not rate:
                yield {"start": name, "rate": 0.0}, start
                continue
            options = {"rate": rate, "steps": few.steps, "batch_size": few.batch_size, "seed": bench.seed}
            yield {"start": name, "rate": rate}, tuned_on(start, samples, **options)
            if few.reach:
                shifted = tuned_on(start, samples, **options, reach=few.reach)
                yield {"start": name, "rate": rate, "reach": few.reach}, shifted
