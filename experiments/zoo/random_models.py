"""Networks of random blocks with random wiring, and every kind of block alone; the tests hold how to draw them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from experiments.zoo.entry import Entry

NETWORKS = 1000
DRAWS_PER_KIND = 4


def entries() -> Iterator[Entry]:
    """A thousand networks, called after their seed and their blocks."""
    yield from map(entry, range(NETWORKS))


def entry(seed: int) -> Entry:
    """The network of a seed, called after it and its blocks."""
    # The strategy is part of the tests, and nothing else of the experiments needs them.
    from tests.random_networks import build, inputs_of, random_plan

    plan = random_plan(seed)
    name = f"{seed}: {' '.join(block.kind for block in plan.blocks)}"
    return Entry(name, partial(build, plan), partial(inputs_of, plan))


def blocks() -> Iterator[Entry]:
    """Each kind of block between two linear layers, with several draws of its options."""
    from tests.random_networks import alone, build, inputs_of
    from tests.random_networks.plan import KINDS

    for name in KINDS:
        plans = {repr(plan.blocks): plan for plan in (alone(name, seed) for seed in range(DRAWS_PER_KIND))}
        for plan in plans.values():
            options = " ".join(f"{key}={value}" for key, value in plan.blocks[0].options.items())
            yield Entry(f"{name} {options}".strip(), partial(build, plan), partial(inputs_of, plan))
