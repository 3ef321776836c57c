"""What a path was found to be: the loss and accuracy at each position, and the figures made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sinkhorn_rebasin.connectivity.barrier import area_under_curve, barrier, check_positions
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.shown import html_table, svg_curve

PathFigure: TypeAlias = Literal["mean", "midpoint", "barrier"]
"""One number for a path: its mean loss, the loss at its middle, which is a merge's, or its barrier."""


@dataclass(frozen=True, eq=False, repr=False)
class PathEvaluation:
    """Hold loss and accuracy along a path.

    The path leads from the rebased target (λ=0) to the reference (λ=1).

    Args:
        positions: (points,), ascending from 0 to 1, the midpoint ½ among them.
        losses: (points,), mean over the samples.
        accuracies: (points,), fraction of samples classified correctly; None where that has no meaning.

    All three are kept in float64 on the CPU.

    Raises:
        DataError: positions that do not run from 0 over ½ to 1, or values that do not fit them.

    Example:
        >>> path = PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
        >>> path.barrier, path.midpoint_loss, path.endpoints
        (3.0, 5.0, (1.0, 3.0))
    """

    positions: Tensor
    losses: Tensor
    accuracies: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("positions", "losses", "accuracies"):
            value = getattr(self, name)
            if value is not None:
                value = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
                object.__setattr__(self, name, value)
                if value.shape != self.positions.shape:
                    raise DataError(
                        f"Expected {name} of shape {tuple(self.positions.shape)}, one for each position,"
                        f" but got {tuple(value.shape)}."
                    )
        check_positions(self.positions)
        if self.positions[0] != 0 or self.positions[-1] != 1 or not bool((self.positions == 0.5).any()):
            raise DataError(
                f"Expected positions from 0 to 1 with 0.5 among them but got {self.positions.tolist()}."
            )

    def __repr__(self) -> str:
        ends = " and ".join(f"{loss:.5g}" for loss in self.endpoints)
        losses = f"losses {ends} at the ends, {self.midpoint_loss:.5g} at the midpoint"
        accuracy = self.midpoint_accuracy
        middle = "" if accuracy is None else f", accuracy {100 * accuracy:.4g} % at the midpoint"
        return f"PathEvaluation({len(self.positions)} points, {losses}{middle}, barrier {self.barrier:.5g})"

    def _repr_html_(self) -> str:
        rows = [*self._places(), ("along the path", self._figures())]
        curve = svg_curve(self.positions.tolist(), self.losses.tolist())
        return html_table(f"Path of {len(self.positions)} points", rows, curve)

    @property
    def barrier(self) -> float:
        """Return the loss's largest rise above the chord.

        The chord joins the ends. The rise is clipped at 0.
        """
        return barrier(self.positions, self.losses).item()

    @property
    def auc(self) -> float:
        """Return the area between loss and chord.

        Only what lies above the chord counts.
        """
        return area_under_curve(self.positions, self.losses).item()

    @property
    def accuracy_barrier(self) -> float | None:
        """Return the accuracy's largest fall below the chord.

        The chord joins the ends. The fall is a fraction, clipped at 0.
        """
        return None if self.accuracies is None else barrier(self.positions, -self.accuracies).item()

    @property
    def midpoint_loss(self) -> float:
        """Return the loss at λ=½."""
        return self.losses[self._midpoint].item()

    @property
    def midpoint_accuracy(self) -> float | None:
        """Return the accuracy at λ=½, a fraction."""
        return None if self.accuracies is None else self.accuracies[self._midpoint].item()

    @property
    def endpoints(self) -> tuple[float, float]:
        """Return the losses of rebased target and reference.

        They stand at λ=0 and at λ=1.
        """
        return self.losses[0].item(), self.losses[-1].item()

    @property
    def endpoint_accuracies(self) -> tuple[float, float] | None:
        """Return the accuracies of rebased target and reference.

        They stand at λ=0 and at λ=1, and are fractions.
        """
        return None if self.accuracies is None else (self.accuracies[0].item(), self.accuracies[-1].item())

    def figure(self, name: PathFigure = "mean") -> float:
        """Return one number, the lower the better.

        Args:
            name: ``"mean"`` loss of all positions, loss at the ``"midpoint"``, or ``"barrier"``.

        Raises:
            DataError: another name.

        Example:
            >>> path = PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
            >>> path.figure(), path.figure("midpoint"), path.figure("barrier")
            (3.0, 5.0, 3.0)
        """
        if name not in get_args(PathFigure):
            raise DataError(f"Expected one of {', '.join(get_args(PathFigure))} of a path but got {name!r}.")
        if name == "mean":
            return self.losses.mean().item()
        return self.midpoint_loss if name == "midpoint" else self.barrier

    @property
    def _midpoint(self) -> int:
        return int((self.positions == 0.5).nonzero()[0, 0])

    def to_dict(self) -> dict[str, Any]:
        """Return lists and numbers for a JSON receipt.

        The derived figures are included.

        Example:
            >>> import json
            >>> path = PathEvaluation(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 5.0, 3.0]))
            >>> PathEvaluation.from_dict(json.loads(json.dumps(path.to_dict()))).barrier == path.barrier
            True
        """
        return {
            "positions": self.positions.tolist(),
            "losses": self.losses.tolist(),
            "accuracies": None if self.accuracies is None else self.accuracies.tolist(),
            "barrier": self.barrier,
            "auc": self.auc,
            "accuracy_barrier": self.accuracy_barrier,
            "midpoint_loss": self.midpoint_loss,
            "midpoint_accuracy": self.midpoint_accuracy,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PathEvaluation:
        """Read an evaluation that :meth:`to_dict` wrote.

        Derived figures are computed anew.

        Raises:
            DataError: positions or losses are missing.
        """
        for key in ("positions", "losses"):
            if key not in values:
                raise DataError(f"Expected {key!r} in a path evaluation but got the keys {sorted(values)}.")
        accuracies = values.get("accuracies")
        return cls(
            torch.tensor(values["positions"], dtype=torch.float64),
            torch.tensor(values["losses"], dtype=torch.float64),
            None if accuracies is None else torch.tensor(accuracies, dtype=torch.float64),
        )

    def __str__(self) -> str:
        lines = [f"  {place}   {told}" for place, told in self._places()]
        return "\n".join([f"Path of {len(self.positions)} points", *lines, f"  {self._figures()}"])

    def _places(self) -> list[tuple[str, str]]:
        """List ends and midpoint with their loss and accuracy."""
        places = [
            ("target (rebased) λ=0", 0),
            ("midpoint         λ=½", self._midpoint),
            ("reference        λ=1", -1),
        ]
        accuracies = self.accuracies
        return [
            (
                place,
                f"loss {self.losses[index].item():.4f}"
                + ("" if accuracies is None else f"   accuracy {100 * accuracies[index].item():6.2f} %"),
            )
            for place, index in places
        ]

    def _figures(self) -> str:
        figures = f"barrier {self.barrier:.4f}   area {self.auc:.4f}"
        if self.accuracy_barrier is None:
            return figures
        return f"{figures}   accuracy barrier {100 * self.accuracy_barrier:.2f} points"
