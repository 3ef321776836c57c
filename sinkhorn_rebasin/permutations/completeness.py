"""Whether a spec is one, whether a state is one of its architecture, and which of its tensors it may leave out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import RebasinWarning, SpecError, prefix_hint, unbuilt_message
from sinkhorn_rebasin.permutations.structure import SpecStructure


def check_spec(spec: object) -> None:
    """Raise :class:`SpecError` for what is no spec.

    >>> check_spec(SpecStructure((), (), {}))
    """
    check_kind(
        spec,
        SpecStructure,
        "a PermutationSpec",
        "make one with discover_symmetry(model, example_inputs), or of a dictionary of Git Re-Basin with "
        "PermutationSpec.from_axes_to_perm",
    )


def check_kind(given: object, kind: type, expected: str, remedy: str) -> None:
    """Raise :class:`SpecError` unless symmetries are of a kind.

    >>> check_kind(SpecStructure((), (), {}), SpecStructure, "a PermutationSpec", "discover one")
    """
    if not isinstance(given, kind):
        raise SpecError(f"Expected {expected} but got {type(given).__name__}: {remedy}.")


def check_state(spec: SpecStructure, state: StateLike) -> None:
    """Raise :class:`SpecError` for a state of another architecture, or what is no spec.

    Of names that share one tensor, one is enough. A state of parameters alone, such as moments of an optimiser,
    lacks every buffer; one that lacks some buffers and has others is warned of.
    """
    check_spec(spec)
    if not isinstance(state, Mapping):
        raise SpecError(
            f"Expected a state, tensor names to tensors, but got {type(state).__name__}: pass model.state_dict()."
        )
    present = completed(spec, state)
    missing = [name for name in spec.shapes if name not in present]
    for name, shape in spec.shapes.items():
        if message := unbuilt_message(name, present.get(name)):
            raise SpecError(message)
        if name in present and not _fits(spec, name, tuple(present[name].shape)):
            raise SpecError(
                f"Expected tensor {name!r} of shape {tuple(shape)} but got {tuple(present[name].shape)}. "
                f"Was the spec discovered on another network?"
            )
        if name not in present and name not in spec.buffers:
            raise SpecError(
                f"Expected a state with the tensor {name!r}, which this spec permutes, but it is missing."
                f"{prefix_hint(state, spec.shapes) or ' Was the spec discovered on another network?'}"
            )
    if missing and any(name in state for name in spec.buffers):
        warnings.warn(
            f"Expected a state with all buffers of the spec, or with none of them, but it lacks "
            f"{', '.join(map(repr, missing))}: they stay as they are wherever this state is loaded.",
            RebasinWarning,
            stacklevel=3,
        )


def _fits(spec: SpecStructure, name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a tensor has the shape of the spec's, an ignored one on the axes that groups hold."""
    expected = tuple(spec.shapes[name])
    if name not in spec.ignored or len(shape) != len(expected):
        return shape == expected
    held = {axis for slot in spec.slots_on(name) for axis in slot.axes}
    return all(shape[axis] == expected[axis] for axis in held)


def completed(spec: SpecStructure, state: StateLike) -> State:
    """Complete a state by every name of tied tensors.

    A name that the state lacks gets the tensor that the state holds under another of its names.

    >>> import torch
    >>> from sinkhorn_rebasin.permutations import PermutationSpec
    >>> spec = PermutationSpec((), (), {"in": (2,), "out": (2,)}, tied=(("in", "out"),))
    >>> sorted(completed(spec, {"out": torch.zeros(2)}))
    ['in', 'out']
    """
    found = dict(state)
    for names in spec.tied:
        given = next((name for name in names if name in state), None)
        if given is not None:
            found.update({name: state[given] for name in names if name not in state})
    return found
