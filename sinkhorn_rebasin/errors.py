"""The errors and warnings of the package, all under one base class each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

__all__ = [
    "ArchitectureError",
    "AssignmentError",
    "CheckpointError",
    "ConvergenceWarning",
    "CoverageWarning",
    "DataError",
    "LearningWarning",
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
    "unbuilt_message",
]


class RebasinError(Exception):
    """Mark every error that is raised on purpose.

    It is the base class of all errors of this package.
    """


class AssignmentError(RebasinError, ValueError):
    """Report what no assignment can be computed from.

    These are scores, a temperature or a tolerance.
    """


class SpecError(RebasinError, ValueError):
    """Report a permutation specification that does not fit.

    It fits not the network, or not the permutations it is used with.
    """


class SymmetryError(RebasinError, RuntimeError):
    """Report a claimed symmetry that changes the function.

    The function is that of the network.

    Attributes:
        groups: names of the groups that change it, where that is known.
    """

    def __init__(self, message: str, groups: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.groups = tuple(dict.fromkeys(groups))


class RuleError(RebasinError, ValueError):
    """Report a rule for an operation without rules.

    Such an operation cannot have one.
    """


class ArchitectureError(RebasinError, ValueError):
    """Report networks that cannot be aligned.

    Inputs that a network does not take are reported, too.
    """


class LossError(RebasinError, ValueError):
    """Report a loss that is no finite scalar."""


class DataError(RebasinError, ValueError):
    """Report missing, empty or unexpectedly shaped data."""


class RecipeError(RebasinError, ValueError):
    """A recipe with a number that no alignment can be made by."""


class CheckpointError(RebasinError, ValueError):
    """Report a checkpoint that cannot be used.

    It was written for another network, does not load, or cannot be written.
    """


class RebasinWarning(UserWarning):
    """Mark every warning that is given on purpose.

    It is the base class of all warnings of this package.
    """


class ConvergenceWarning(RebasinWarning):
    """Report an iteration that stopped too early.

    It did not reach its tolerance.
    """


class CoverageWarning(RebasinWarning):
    """Report a network of which little can move.

    Few of its parameters can be permuted.
    """


class LearningWarning(RebasinWarning):
    """Report a task that was not learned.

    It was trained on, and its own samples are not recognized.
    """


def listed(names: Iterable[object], most: int = 3) -> str:
    """Write the first few of some names.

    Where there are more, their number follows.

    Example:
        >>> listed(["a", "b"]), listed(range(9), most=2)
        ('a, b', '0, 1 and 7 more')
    """
    words = [str(name) for name in names]
    shown = ", ".join(word if len(word) <= 40 else f"{word[:20]}…{word[-19:]}" for word in words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def outputs_message(outputs: object) -> str:
    """Say what is wrong with ``outputs=``.

    The message is empty where it names outputs, or is None or a function.

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
    """Name a wrapper's prefix that tensor names carry.

    The text is the end of a message.

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


def unbuilt_message(name: str, tensor: object, kind: str = "tensor") -> str:
    """Say that a tensor has no shape yet.

    The message is empty where it has one.

    >>> unbuilt_message("weight", UninitializedParameter())[:70]
    'Expected a network whose layers are built but got the uninitialised te'
    """
    if not isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        return ""
    return (
        f"Expected a network whose layers are built but got the uninitialised {kind} {name!r}: run it once on its "
        f"inputs."
    )
