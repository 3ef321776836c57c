"""What every tutorial ends in: a sentence that is true, or an error."""

from __future__ import annotations


def check(truth: bool, sentence: str) -> None:
    """Print a sentence that is true, and raise if it is not.

    Example:
        >>> check(1 < 2, "one is less than two")
        True: one is less than two.
    """
    if not truth:
        raise AssertionError(f"Expected that {sentence}.")
    print(f"True: {sentence}.")
