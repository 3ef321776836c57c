"""What a rule returns, and its refusal to interpret an operation."""

from __future__ import annotations

from collections.abc import Sequence

from sinkhorn_rebasin.symmetry.labels.labels import Labels

Result = Labels | Sequence[Labels | None]


class NotUnderstoodError(Exception):
    """Raised by a rule for a use of its operation that it cannot interpret; the labels it touches freeze."""
