"""The networks of the test suite, each with the symmetries that a human wrote down for it.

The only place outside the tests that knows them: a symmetry is written down once, and what is measured here is
what the tests demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from experiments.zoo.entry import Entry
from sinkhorn_rebasin.permutations import PermutationSpec
from tests.cases import CASES, Case, found_slots


def entries() -> Iterator[Entry]:
    """Every case; those of which only soundness is asked have no human's symmetries."""
    for case in CASES:
        written = case.groups is not None or case.slots is not None
        yield Entry(case.name, case.make, case.make_inputs, partial(_agrees, case) if written else None)


def _agrees(case: Case, spec: PermutationSpec) -> bool:
    groups = Counter((group.size, group.blocks) for group in spec.groups)
    same_groups = case.groups is None or groups == Counter(case.groups)
    return same_groups and (case.slots is None or found_slots(spec) == set(case.slots))
