"""The loss and the accuracy at every point of a plane."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare, evaluate_state
from sinkhorn_rebasin.errors import CheckpointError, DataError
from sinkhorn_rebasin.landscape.plane import Plane, inner
from sinkhorn_rebasin.landscape.small_batches import ROUNDING, ROUNDING_OF_HALF, agree, in_small_batches
from sinkhorn_rebasin.networks.batches import batches_in
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.task_loss import task_loss


@dataclass(frozen=True, eq=False)
class PlaneEvaluation:
    """Hold loss and accuracy on a plane's grid.

    Attributes:
        x, y: (columns,) and (rows,), the coordinates.
        losses: (rows, columns), mean over the samples.
        accuracies: (rows, columns), fraction classified correctly; None where that has no meaning.
        marks: coordinates of networks, by name.
    """

    x: Tensor
    y: Tensor
    losses: Tensor
    accuracies: Tensor | None = None
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        lowest, highest = float(self.losses.min()), float(self.losses.max())
        size = f"{len(self.x)} x {len(self.y)} points"
        return f"PlaneEvaluation({size}, losses {lowest:.4g} to {highest:.4g}, {', '.join(self.marks)})"


def evaluate_plane(
    plane: Plane,
    dataloader: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    points: int = 25,
    margin: float = 0.3,
    prepare: Prepare | None = None,
    keep: str | PathLike[str] | None = None,
    progress: bool = False,
    batch: BatchAdapter | None = None,
) -> PlaneEvaluation:
    r"""Evaluate loss and accuracy on a plane.

    The grid of equal distances covers all marks and a margin around them. Around a single mark it goes from -1 to 1
    in units of the length of the network's weights. The data are read once and held in memory, so that every point
    is measured on the same samples. Nothing that is passed in is changed.

    - Weights on a GPU, and networks other than those of images, run on the batches as they are.
    - On a processor, images run in small batches with their channels last, which stay in the cache, where the
      plane's origin is the same either way.

    Args:
        plane: through networks, or :func:`random_plane`.
        dataloader: batches of (inputs, labels), or what ``batch`` understands. A few hundred samples do for a
            picture.
        criterion: as for :func:`evaluate_path`.
        points: of each axis.
        margin: around the marks, as a part of what they span.
        prepare: called with the network and the state of each point, as for :func:`evaluate_path`:
            ``BatchNormReset(loader)`` re-estimates running statistics.
        keep: a JSON file to which every finished row is written. With a file that is there already, the evaluation
            goes on where it was stopped.
        progress: show a bar.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        DataError: no batch, fewer than two points, or a margin below zero.
        CheckpointError: the file is of another plane or grid.

    Example:
        >>> plane = Plane.through({name: nn.Linear(3, 2) for name in "abc"})
        >>> batches = [(torch.randn(8, 3), torch.randint(2, (8,)))]
        >>> evaluate_plane(plane, batches, points=3).losses.shape
        torch.Size([3, 3])

    Source: Garipov et al. (2018); Li et al. (2018).
    """
    if points < 2 or not margin >= 0:
        raise DataError(
            f"Expected at least 2 points and a margin of at least 0 but got {points} and {margin}."
        )
    with untouched_randomness():
        batches = list(batches_in(dataloader, "dataloader"))
    if not batches:
        raise DataError("Expected at least one batch to evaluate a plane on but got none.")
    x, y = (_axis(plane, axis, points, margin) for axis in (0, 1))
    rows = _Rows(x, y, plane, None if keep is None else Path(keep))
    module = evaluation_copy(plane.module)
    if len(rows.losses) < points and batch is None:
        batches = _faster(module, plane, batches, criterion, prepare)
    for row in _tracked(range(points), progress):
        if row < len(rows.losses):
            continue
        figures = [
            _figures(module, plane, float(at), float(y[row]), batches, criterion, prepare, batch) for at in x
        ]
        rows.add(figures)
    return rows.evaluation()


def _faster(
    module: nn.Module,
    plane: Plane,
    batches: list[Any],
    criterion: Criterion,
    prepare: Prepare | None,
) -> list[Any]:
    """Return small batches where they are faster.

    The origin must be the same on them.
    """
    small = in_small_batches(batches)
    if small is batches or device_of(plane.origin).type != "cpu":
        return batches
    whole, parts = (
        _figures(module, plane, 0.0, 0.0, some, criterion, prepare, None) for some in (batches, small)
    )
    halved = torch.is_autocast_enabled("cpu") or any(tensor.itemsize < 4 for tensor in plane.origin.values())
    return small if agree(whole, parts, ROUNDING_OF_HALF if halved else ROUNDING) else batches


@torch.no_grad()
def _figures(
    module: nn.Module,
    plane: Plane,
    x: float,
    y: float,
    batches: list[Any],
    criterion: Criterion,
    prepare: Prepare | None,
    batch: BatchAdapter | None,
) -> tuple[float, float | None]:
    with untouched_randomness():
        state = plane.state_at(x, y)
        state = state if prepare is None else prepare(module, state)
        return evaluate_state(module, state, batches, criterion, batch=batch)


class _Rows:
    """Hold the finished rows, on file too."""

    def __init__(self, x: Tensor, y: Tensor, plane: Plane, file: Path | None) -> None:
        self.x, self.y, self.marks, self.file = x, y, dict(plane.marks), file
        self.losses: list[list[float]] = []
        self.accuracies: list[list[float | None]] = []
        if file is not None and file.is_file():
            self._read(file)

    def add(self, figures: list[tuple[float, float | None]]) -> None:
        """Take the figures of one more row."""
        self.losses.append([loss for loss, _ in figures])
        self.accuracies.append([accuracy for _, accuracy in figures])
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Written beside and put in place at once, so that a run that is killed leaves a whole file.
            beside = self.file.with_suffix(".part")
            beside.write_text(
                json.dumps(self._grid() | {"losses": self.losses, "accuracies": self.accuracies})
            )
            beside.replace(self.file)

    def _grid(self) -> dict[str, Any]:
        marks = {name: list(mark) for name, mark in self.marks.items()}
        return {"x": self.x.tolist(), "y": self.y.tolist(), "marks": marks}

    def _read(self, file: Path) -> None:
        try:
            found = json.loads(file.read_text())
            same = all(found[key] == value for key, value in self._grid().items())
            self.losses, self.accuracies = found["losses"], found["accuracies"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"Expected rows of a plane in {file} but got another file: delete it."
            ) from error
        if not same:
            raise CheckpointError(
                f"Expected rows of this plane and grid in {file} but got those of others: delete it, or name another "
                f"file in keep=."
            )

    def evaluation(self) -> PlaneEvaluation:
        """Return all rows."""
        flat = [accuracy for row in self.accuracies for accuracy in row]
        known = [accuracy for accuracy in flat if accuracy is not None]
        losses = torch.tensor(self.losses, dtype=torch.float64)
        accuracies = (
            torch.tensor(known, dtype=torch.float64).view_as(losses) if len(known) == len(flat) else None
        )
        return PlaneEvaluation(self.x, self.y, losses, accuracies, self.marks)


def _axis(plane: Plane, axis: int, points: int, margin: float) -> Tensor:
    places = [mark[axis] for mark in plane.marks.values()]
    if len(places) < 2:
        length = inner(plane.origin, plane.origin) ** 0.5
        return torch.linspace(-length, length, points, dtype=torch.float64)
    low, high = min(places), max(places)
    spans = [
        max(mark[k] for mark in plane.marks.values()) - min(mark[k] for mark in plane.marks.values())
        for k in (0, 1)
    ]
    room = margin * max(spans)
    return torch.linspace(low - room, high + room, points, dtype=torch.float64)


@untouched_randomness()  # of which the import of rich draws
def _tracked(rows: Iterable[int], progress: bool) -> Iterable[int]:
    if not progress:
        return rows
    from rich.progress import track

    return track(list(rows), description="plane")
