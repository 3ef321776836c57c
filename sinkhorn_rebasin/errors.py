"""The errors and warnings of the package, all under one base class each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "ArchitectureError",
    "AssignmentError",
    "CheckpointError",
    "ConvergenceWarning",
    "CoverageWarning",
    "DataError",
    "LossError",
    "RebasinError",
    "RebasinWarning",
    "RecipeError",
    "RuleError",
    "SpecError",
    "SymmetryError",
    "listed",
    "outputs_message",
    "prefix_hint",
]


class RebasinError(Exception):
    """Base class of every error this package raises on purpose."""


class AssignmentError(RebasinError, ValueError):
    """Scores, a temperature or a tolerance that no assignment can be computed from."""


class SpecError(RebasinError, ValueError):
    """A permutation specification that does not fit the network or the permutations it is used with."""


class SymmetryError(RebasinError, RuntimeError):
    """A claimed symmetry that changes the function of the network.

    Attributes:
        groups: names of the groups that change it, where that is known.
    """

    def __init__(self, message: str, groups: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.groups = tuple(dict.fromkeys(groups))


class RuleError(RebasinError, ValueError):
    """A rule for an operation that cannot have one."""


class ArchitectureError(RebasinError, ValueError):
    """Networks that cannot be aligned with each other, or inputs a network does not take."""


class LossError(RebasinError, ValueError):
    """A loss that is no finite scalar."""


class DataError(RebasinError, ValueError):
    """Data that is missing, empty or of an unexpected shape."""


class RecipeError(RebasinError, ValueError):
    """A recipe with a number that no alignment can be made by."""


class CheckpointError(RebasinError, ValueError):
    """A checkpoint that was written for another network, does not load, or cannot be written."""


class RebasinWarning(UserWarning):
    """Base class of every warning this package gives on purpose."""


class ConvergenceWarning(RebasinWarning):
    """An iteration that stopped before it reached its tolerance."""


class CoverageWarning(RebasinWarning):
    """A network of which little can be permuted."""


def listed(names: Iterable[object], most: int = 3) -> str:
    """Write the first few of some names, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed(range(9), most=2)
        ('a, b', '0, 1 and 7 more')
    """
    words = [str(name) for name in names]
    shown = ", ".join(word if len(word) <= 40 else f"{word[:20]}…{word[-19:]}" for word in words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def outputs_message(outputs: object) -> str:
    """What to tell of ``outputs=`` that names no outputs; empty where it does, or is a function.

    >>> outputs_message("logits"), outputs_message(3)[:39]
    ('', 'Expected outputs to be the name of an o')
    """
    named = isinstance(outputs, Sequence) and len(outputs) > 0 and all(isinstance(n, str) for n in outputs)
    if outputs is None or named or callable(outputs):
        return ""
    return (
        f"Expected outputs to be the name of an output, a sequence of names or a function of the output but got "
        f"{outputs!r}."
    )


def prefix_hint(found: Iterable[str], expected: Iterable[str]) -> str:
    """Name the prefix of a wrapper that found tensor names carry, as the end of a message.

    Example:
        >>> prefix_hint(["module.weight"], ["weight"]).startswith(" The names begin with 'module.'")
        True
        >>> prefix_hint(["weight"], ["weight", "bias"])
        ''
    """
    known = set(expected)
    foreign = [name for name in found if name not in known]
    compiled = any(name.replace("_orig_mod.", "") in known for name in foreign)
    for name in foreign:
        parts = name.split(".")
        behind = [".".join(parts[:place]) + "." for place in range(1, len(parts))]
        prefix = next((start for start in behind if name.removeprefix(start) in known), None)
        if prefix is not None and all(other.startswith(prefix) for other in foreign):
            return (
                f" The names begin with {prefix!r}, as of a network inside of a wrapper (DataParallel, "
                f"torch.compile, a LightningModule): pass the state of the network itself, or take it off with "
                f"{{name.removeprefix({prefix!r}): tensor for name, tensor in state.items()}}."
            )
    if compiled:
        return (
            " The names hold '_orig_mod.', which torch.compile adds: take it off with "
            "{name.replace('_orig_mod.', ''): tensor for name, tensor in state.items()}."
        )
    return ""
