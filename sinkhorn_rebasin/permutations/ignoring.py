"""Which tensors a spec ignores, by names and patterns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from sinkhorn_rebasin.errors import SpecError, listed
from sinkhorn_rebasin.permutations.structure import SpecStructure


def names_matching(spec: SpecStructure, patterns: Sequence[str]) -> set[str]:
    """Name the tensors that patterns stand for.

    A pattern is the name of a tensor, or of a module, or holds wildcards of the shell.

    Raises:
        SpecError: a pattern is no text, names no tensor, or one of several names of a tied tensor.

    >>> names_matching(SpecStructure((), (), {"fc.weight": (2,), "fc2.weight": (2,)}), ["fc"])
    {'fc.weight'}
    """
    names = tensors_matching(spec, patterns, "ignore")
    for tied in spec.tied:
        inside, outside = names & set(tied), set(tied) - names
        if inside and outside:
            raise SpecError(
                f"Expected to ignore whole tensors but {listed(sorted(inside))} is also {listed(sorted(outside))}: "
                f"ignore both names, or give each memory of its own with untie()."
            )
    return names


def patterns_in(ignore: Sequence[str]) -> Sequence[str]:
    """Return the patterns of what is ignored.

    Raises:
        SpecError: it is one text, whose letters would be the patterns.

    >>> patterns_in(["fc", "*.head"])
    ['fc', '*.head']
    """
    if isinstance(ignore, str):
        raise SpecError(
            f"Expected a list of layers to ignore but got the text {ignore!r}: write [{ignore!r}]."
        )
    return ignore


def tensors_matching(spec: SpecStructure, patterns: Sequence[str], verb: str) -> set[str]:
    """Name the tensors that patterns stand for.

    Raises:
        SpecError: a pattern is no text, or names no tensor.
    """
    names: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise SpecError(f"Expected names or patterns of layers to {verb} but got {pattern!r}.")
        matching = {name for name in spec.shapes if _matches(name, pattern)}
        if not matching:
            raise SpecError(
                f"Expected layers to {verb} but no tensor matches {pattern!r}{_nearest(spec, pattern)}."
            )
        names |= matching
    return names


def only_ignored(spec: SpecStructure) -> list[str]:
    """Name the groups whose units show up in ignored parameters alone."""
    return [
        name
        for name in spec.names
        if {slot.tensor for slot in spec.slots_of(name)} - spec.buffers <= spec.ignored
    ]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def _nearest(spec: SpecStructure, pattern: str) -> str:
    """Say which layers are named alike."""
    layers = {name.rpartition(".")[0] or name: None for name in spec.shapes}
    near = difflib.get_close_matches(pattern, list(layers), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f": the last layer is {next(reversed(layers), '')!r}"
