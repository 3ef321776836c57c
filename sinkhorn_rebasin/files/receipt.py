"""The receipt of an alignment: between which networks it was found, and how."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.errors import CheckpointError
from sinkhorn_rebasin.files.fingerprint import Fingerprint


@dataclass(frozen=True)
class Receipt:
    """Hold what is known of how an alignment was found.

    Attributes:
        reference, target: fingerprints of both networks; None where they are not known.
        settings: arguments of the method, as JSON takes them.
        seed: of the random numbers.
        verified_error: largest relative change of the function that verification measured.
        package: version of this package.

    Example:
        >>> import torch
        >>> receipt = Receipt.of(target=torch.nn.Linear(2, 1).state_dict(), seed=3)
        >>> Receipt.from_json(receipt.to_json()) == receipt
        True
    """

    reference: Fingerprint | None = None
    target: Fingerprint | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    verified_error: float | None = None
    package: str = ""

    @classmethod
    def of(
        cls,
        reference: StateLike | None = None,
        target: StateLike | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        verified_error: float | None = None,
    ) -> Receipt:
        """Make the receipt of an alignment between two states."""
        first, second = (None if state is None else Fingerprint.of(state) for state in (reference, target))
        return cls(first, second, dict(settings or {}), seed, verified_error, package_version())

    def check_target(self, state: StateLike) -> None:
        """Raise ArchitectureError naming the first tensor in which a state is not the target's."""
        if self.target is not None:
            self.target.check(state, "target")

    def check_reference(self, state: StateLike) -> None:
        """Raise ArchitectureError naming the first tensor in which a state is not the reference's."""
        if self.reference is not None:
            self.reference.check(state, "reference")

    def to_json(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return {
            "reference": self.reference and self.reference.to_json(),
            "target": self.target and self.target.to_json(),
            "settings": dict(self.settings),
            "seed": self.seed,
            "verified_error": self.verified_error,
            "package": self.package,
        }

    @classmethod
    def from_json(cls, data: Any) -> Receipt:
        """Read what :meth:`to_json` gave.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            first, second = (
                None if data[role] is None else Fingerprint.from_json(data[role])
                for role in ("reference", "target")
            )
            rest = {name: data[name] for name in ("settings", "seed", "verified_error", "package")}
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"Expected the JSON of a receipt but got {str(data)[:40]!r}.") from error
        return cls(first, second, **rest)


def package_version() -> str:
    """Return the version of this package."""
    return str(importlib.import_module("sinkhorn_rebasin").__version__)
