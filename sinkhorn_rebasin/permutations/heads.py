"""Heads that differ between two networks: found by their shapes, and put into the states in between."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import RebasinWarning, listed
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.permutations.structure import SpecStructure
from sinkhorn_rebasin.permutations.views.coverage import OUTPUT


def differing_heads(spec: SpecStructure, states: Iterable[StateLike]) -> list[str]:
    """Name the tensors in which states are of other shapes than the spec's, if all are last layers.

    A tensor is one of a last layer when discovery has seen each axis that differs become an output of the network.
    Where any other tensor differs, the list is empty.

    >>> from sinkhorn_rebasin.permutations import Frozen
    >>> import torch
    >>> spec = SpecStructure((), (), {"bias": (3,)}, (Frozen("bias", 0, OUTPUT),))
    >>> differing_heads(spec, [{"bias": torch.ones(5)}])
    ['bias']
    """
    outputs = {(item.tensor, item.axis) for item in spec.frozen if item.reason == OUTPUT}
    tied = {name for names in spec.tied for name in names}
    differing: dict[str, None] = {}
    for state in states:
        for name, expected in spec.shapes.items():
            if name in spec.ignored or name not in state or tuple(state[name].shape) == tuple(expected):
                continue
            found = tuple(state[name].shape)
            is_head = len(found) == len(expected) and all(
                ours == theirs or (name, axis) in outputs
                for axis, (ours, theirs) in enumerate(zip(expected, found, strict=True))
            )
            if not is_head or name in tied:
                return []
            differing[name] = None
    return list(differing)


def without_differing_heads(
    spec: PermutationSpec, states: Sequence[StateLike], *, stacklevel: int = 2
) -> PermutationSpec:
    """Ignore last layers in which states are of other shapes than the spec's.

    Warns:
        RebasinWarning: There are some; they are named.
    """
    names = differing_heads(spec, states)
    if not names:
        return spec
    shapes = " and ".join(str(tuple(state[names[0]].shape)) for state in states)
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    warnings.warn(
        f"Expected two networks with one last layer but {listed(map(repr, names))} differ, {names[0]!r} of shape "
        f"{shapes}: each network keeps its own, and all else is aligned. Say so by ignore={layers}.",
        RebasinWarning,
        stacklevel=stacklevel + 1,
    )
    return spec.ignoring(*names)


def with_heads(start: StateLike, end: StateLike, spec: SpecStructure) -> State:
    """Put the ignored tensors of another network into a state.

    >>> import torch
    >>> spec = SpecStructure((), (), {"a": (1,), "b": (1,)}, ignored=frozenset(["b"]))
    >>> with_heads({"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.ones(1), "b": torch.ones(1)}, spec)
    {'a': tensor([0.]), 'b': tensor([1.])}
    """
    return {name: end[name] if name in spec.ignored else tensor for name, tensor in start.items()}
