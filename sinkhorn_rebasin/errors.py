"""The errors and warnings of the package, all under one base class each."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ArchitectureError",
    "AssignmentError",
    "CheckpointError",
    "ConvergenceWarning",
    "DataError",
    "LossError",
    "RebasinError",
    "RebasinWarning",
    "RuleError",
    "SpecError",
    "SymmetryError",
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


class CheckpointError(RebasinError, ValueError):
    """A checkpoint that was written for another network."""


class RebasinWarning(UserWarning):
    """Base class of every warning this package gives on purpose."""


class ConvergenceWarning(RebasinWarning):
    """An iteration that stopped before it reached its tolerance."""
