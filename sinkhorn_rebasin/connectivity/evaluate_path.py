"""Evaluating a path: loss and accuracy of the network at evenly spaced positions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Heads, NetworkLike, State
from sinkhorn_rebasin.connectivity.batch_scores import BatchScores, batch_scores
from sinkhorn_rebasin.connectivity.curves import Curve, LinearPath, SupportsPath
from sinkhorn_rebasin.connectivity.path_result import PathEvaluation
from sinkhorn_rebasin.errors import ArchitectureError, DataError
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.task_loss import task_loss

_NETWORKS = (nn.Module, Mapping, str, os.PathLike)

PathLike: TypeAlias = Curve | SupportsPath | tuple[NetworkLike, NetworkLike]
"""A curve, an object with a ``path()``, or a pair of networks (start, end)."""

Prepare: TypeAlias = Callable[[nn.Module, State], State]
"""Architecture and state to the state to evaluate, for example with batch-norm statistics re-estimated."""


def evaluate_path(
    path: PathLike,
    dataloader: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    points: int = 25,
    prepare: Prepare | None = None,
    progress: bool = False,
    batch: BatchAdapter | None = None,
    heads: Heads | None = None,
    ignore: Sequence[str] = (),
) -> PathEvaluation:
    """Evaluate loss and accuracy along a path.

    Positions are evenly spaced. The network runs in eval mode and without gradient. The dataloader is read once per
    position, each time from the same state of PyTorch's CPU generator, so that a shuffling or augmenting loader shows
    every position the same samples. Batches are moved to the device of the weights. Nothing passed in is changed.

    Args:
        path: a curve, an object with a ``path()`` such as a trained re-basin, or a pair of networks (start, end), of
            which one may be weights alone.
        dataloader: batches of (inputs, labels), or what :func:`read_batch` knows; inputs a tensor, a tuple, a dict of
            keyword arguments, or an object that holds tensors.
        criterion: (outputs, labels) to the mean loss of the batch; without one the loss that the network reports,
            as those of Hugging Face do when batches are dicts with labels, and else cross entropy. What
            ``nn.CrossEntropyLoss`` ignores or weighs, or ``functools.partial(F.cross_entropy, ...)``, is known and
            counted so.
        points: how many positions from 0 to 1; odd, so that ½ is one of them.
        prepare: called at every position with the network, in eval mode, and the state; returns the state
            to evaluate. ``BatchNormReset(loader)`` re-estimates running statistics here.
        progress: show a progress bar.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        heads: whose ignored layers the networks of the path have, ``"reference"`` (λ = 1) or ``"target"`` (λ = 0).
            A path between heads that differ is refused without it.
        ignore: of a pair of networks, these layers; without it those that differ in shape.

    Returns:
        losses averaged over all that counts, see :func:`evaluate_state`; accuracies when
        the outputs are (samples, classes, ...) and the labels
        integer classes (samples, ...), otherwise None.

    Raises:
        DataError: no batch, one that is not understood, labels that the criterion is not for, a one-shot iterator,
            or an even number of points.
        ArchitectureError: the first argument is no path, or its two networks differ.
        LossError: the criterion does not return one number.

    Example:
        >>> pair = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> batches = [(torch.randn(8, 3), torch.randint(2, (8,)))]
        >>> result = evaluate_path(pair, batches, points=5)
        >>> result.barrier == 0.0 and result.losses.shape == (5,)  # cross-entropy is convex in one layer
        True
    """
    if points < 3 or points % 2 == 0:
        raise DataError(f"Expected an odd number of points, at least 3, so that ½ is one but got {points}.")
    if isinstance(dataloader, Iterator):
        raise DataError(
            "Expected a dataloader that can be read once per position but got a one-shot iterator;"
            " pass a DataLoader or a list of batches."
        )
    curve = as_curve(path, heads, ignore)
    positions = torch.linspace(0, 1, points, dtype=torch.float64, device="cpu")
    tracked = _tracked(positions.tolist(), progress)
    scores = scores_along(curve, tracked, dataloader, criterion, prepare=prepare, batch=batch)
    known = [each.accuracy for each in scores if each.accuracy is not None]
    return PathEvaluation(
        positions,
        torch.tensor([each.loss for each in scores], dtype=torch.float64, device="cpu"),
        torch.tensor(known, dtype=torch.float64, device="cpu") if len(known) == points else None,
    )


@torch.no_grad()
def scores_along(
    curve: Curve,
    positions: Iterable[float],
    dataloader: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    prepare: Prepare | None = None,
    batch: BatchAdapter | None = None,
) -> list[BatchScores]:
    """Score every batch at every position.

    See :func:`evaluate_path` for the arguments.

    >>> line = LinearPath.between(nn.Linear(3, 2), nn.Linear(3, 2))
    >>> batches = [(torch.randn(8, 3), torch.randint(2, (8,))) for _ in range(4)]
    >>> [scores.losses.shape for scores in scores_along(line, [0.0, 0.5], batches)]
    [torch.Size([4]), torch.Size([4])]
    """
    module, scores = evaluation_copy(curve.module), []
    for position in positions:
        with untouched_randomness():
            state = curve.state_at(position)
            state = state if prepare is None else prepare(module, state)
            scores.append(batch_scores(module, state, dataloader, criterion, batch=batch))
    return scores


@torch.no_grad()
def evaluate_state(
    module: nn.Module,
    state: State,
    dataloader: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    batch: BatchAdapter | None = None,
) -> tuple[float, float | None]:
    """Evaluate a network at one state.

    Returns (mean loss, accuracy). The network runs in the mode its module is in. Each batch counts by what its mean
    was taken over: labels that are not ignored, weighed by their classes, with cross-entropy; samples with criteria
    of your own, or labels that are not negative where they are classes. So the loss does not depend on how samples
    are spread over batches. A criterion that is a sum is added up. The accuracy is that of the labels that count,
    such as the next word at every place, and None where the outputs are not (samples, classes, ...) or the labels not
    integer classes (samples, ...).

    Raises:
        DataError: no batch, no pair (inputs, labels), or no label that counts.
        LossError: the criterion does not return one number.

    Example:
        >>> state = {"weight": torch.tensor([[2.0]])}
        >>> batches = [(torch.ones(4, 1), torch.zeros(4, 1))]
        >>> evaluate_state(nn.Linear(1, 1, bias=False), state, batches, nn.MSELoss())
        (4.0, None)
    """
    scores = batch_scores(module, state, dataloader, criterion, batch=batch)
    return scores.loss, scores.accuracy


def as_curve(path: PathLike, heads: Heads | None = None, ignore: Sequence[str] = ()) -> Curve:
    """Return the curve of a path-like.

    That is the curve itself, an object's ``path()``, or a pair's segment.

    Raises:
        ArchitectureError: it is none of these, or the two networks of the pair differ.

    Example:
        >>> as_curve((nn.Linear(2, 2), nn.Linear(2, 2)))
        LinearPath(Linear, 2 tensors)
    """
    if isinstance(path, (tuple, list)) and len(path) == 2 and all(isinstance(m, _NETWORKS) for m in path):
        return LinearPath.between(*path, heads=heads, ignore=ignore)
    if isinstance(path, SupportsPath) and not ignore:
        return path.path() if heads is None else path.path(heads=heads)  # type: ignore[call-arg]
    if isinstance(path, Curve) and not ignore and heads is None:
        return path
    if isinstance(path, (SupportsPath, Curve)):
        raise ArchitectureError(
            f"Expected a pair of networks with ignore=, or heads= for what has a path() method, but got "
            f"{type(path).__name__}, which has settled both."
        )
    raise ArchitectureError(
        "Expected a curve, an object with a path() method or a pair of networks"
        f" but got {type(path).__name__}."
    )


@untouched_randomness()  # of which the import of rich draws
def _tracked(positions: list[float], progress: bool) -> Iterable[float]:
    if not progress:
        return positions
    from rich.progress import track

    return track(positions, description="Evaluating the path", transient=True)
