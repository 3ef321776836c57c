"""Define what a rule returns, and its refusal."""

from __future__ import annotations

from collections.abc import Sequence

from sinkhorn_rebasin.symmetry.labels.labels import Labels

Result = Labels | Sequence[Labels | None]


class NotUnderstoodError(Exception):
    """Refuse a use of an operation; its labels freeze."""
