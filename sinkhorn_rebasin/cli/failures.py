"""What makes a verb end with another exit code than 0."""

from __future__ import annotations

from sinkhorn_rebasin.errors import ArchitectureError, RebasinError, SymmetryError

REFUSED, NOT_VERIFIED = 2, 3
"""Exit codes: refused, with reason and remedy; a verification that failed. 1 is left to Python's own errors."""


class UsageError(RebasinError, ValueError):
    """Options that a verb does not have, or lacks."""


class NotMergeableError(ArchitectureError):
    """Two networks that cannot be merged, with the reason and the remedy."""


class VerificationError(SymmetryError):
    """A file that is not what it claims to be for two networks."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error.

    >>> exit_code(NotMergeableError("other widths")), exit_code(UsageError("no file"))
    (2, 2)
    """
    return NOT_VERIFIED if isinstance(error, SymmetryError) else REFUSED


def one_line(error: BaseException | str) -> str:
    """Write a message in one line.

    >>> one_line(ValueError("first" + chr(10) + "  second"))
    'first second'
    """
    return " ".join(str(error).split()) or type(error).__name__
