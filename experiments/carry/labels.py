"""Few labels: tuned from the carried start, and from the new base, with the same samples and steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import nn

from experiments.carry.bench import Bench, Tried, tuned_on
from experiments.carry.methods import carried

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
        inputs = bench.labelled(count)[0]
        update = carried(bench, None, bench.base_batches() if few else list(inputs.split(max(1, count // 5))))
        looked = "base data" if few else "the samples"
        starts: dict[str, nn.Module] = {
            f"carried with {looked}, scale {scale:g}": update.apply(bench.pair.new_base, scale)
            for scale in STARTS
        }
        yield from _tuned(bench, count, starts)

    return tried


def _tuned(bench: Bench, count: int, starts: dict[str, nn.Module]) -> Iterator[Tried]:
    few = bench.setting.labels
    samples = bench.labelled(count)
    for name, start in starts.items():
        for rate in few.rates:
            options = {"rate": rate, "steps": few.steps, "batch_size": few.batch_size, "seed": bench.seed}
            yield {"start": name, "rate": rate}, tuned_on(start, samples, **options)
