"""Drawing plans: by hypothesis, which shrinks them, or by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.random_networks import blocks  # noqa: F401 - registers every kind
from tests.random_networks.joins import JOINS
from tests.random_networks.network import ACTIVATIONS
from tests.random_networks.plan import IMAGE, KINDS, SEQUENCE, SIGNAL, VECTOR, VOLUME, Block, Plan

DOMAINS = (VECTOR, SEQUENCE, SEQUENCE, IMAGE, IMAGE, SIGNAL, VOLUME)
WIDTHS = (4, 2, 3, 4, 5, 6, 6, 8)
Choose = Callable[[Sequence[Any]], Any]


def draw_plan(choose: Choose) -> Plan:
    """A plan of choices from sequences, whose first members are the simplest."""
    count = choose((1, 2, 3, 4, 5, 6))
    domain = choose(DOMAINS)
    stem = choose(("plain", "plain", "words")) if domain == SEQUENCE else "plain"
    return Plan(
        domain,
        choose(WIDTHS),
        tuple(draw_block(choose, domain) for _ in range(count)),
        stem,
        choose(("mean", "flat", "positions", "tied")),
        choose(range(1000)),
    )


def draw_block(choose: Choose, domain: str) -> Block:
    """One block; half of them are of the domain the network reads, and every family is as likely."""
    near = [kind for kind in KINDS.values() if domain in kind.domains]
    members: dict[str, list[str]] = {}
    for kind in near if choose((True, False)) else KINDS.values():
        for family in kind.families:
            members.setdefault(family, []).append(kind.name)
    first = sorted(members, key=lambda family: (family != "linear", family))
    chosen = KINDS[choose(members[choose(first)])]
    options = {name: choose(values) for name, values in chosen.options.items()}
    return Block(
        chosen.name,
        choose(WIDTHS),
        options,
        choose((1, 1, 1, 1, 2, 3)),
        choose(JOINS),
        choose(tuple(ACTIVATIONS)),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of one to six blocks."""
    return draw_plan(lambda values: draw(st.sampled_from(values)))


def random_plan(seed: int) -> Plan:
    """The plan of a seed, the same on every machine."""
    return draw_plan(random.Random(seed).choice)


def alone(name: str, seed: int = 0, **options: Any) -> Plan:
    """One block of a kind between a stem and a head; options by a seed unless given."""
    chosen = KINDS[name]
    pick = random.Random(seed).choice if seed else (lambda values: values[0])
    drawn = {key: options.get(key, pick(values)) for key, values in chosen.options.items()}
    return Plan(chosen.domains[0], 4, (Block(name, 6, drawn, activation="tanh"),), seed=seed)
