"""Sinkhorn matching: a re-basin trained in a plain loop, behind the protocol of the other methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, NetworkLike
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import DataError, LossError
from sinkhorn_rebasin.files.given_networks import modules_of
from sinkhorn_rebasin.losses import MidpointLoss, RandomPointLoss, RebasinLoss, WeightDistance, checked_loss
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.matching.pair_of_states import as_states
from sinkhorn_rebasin.networks.batches import endless_batches, move_to, read_batch
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.rebasin.initialization import Start

LossName = Literal["inner", "l1", "l2", "midpoint", "random_point"]


@torch.inference_mode(False)
def sinkhorn_matching(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    generator: torch.Generator | None = None,
    loss: LossName | RebasinLoss = "inner",
    criterion: Criterion = task_loss,
    steps: int = 100,
    lr: float = 0.1,
    temperature: Callable[[float], float] | None = None,
    start: Start = "weight_matching",
    batch: BatchAdapter | None = None,
    ignore: Sequence[str] = (),
) -> Alignment:
    r"""Learn soft permutations with any loss by gradient descent, and return the hard ones they end at.

    .. math:: \min_X \mathcal L\bigl(\pi_P(\theta_T), \theta_R\bigr), \qquad P = \mathrm{Sinkhorn}(X / \tau), \qquad
        \pi = \arg\max_\pi \langle \pi, X \rangle

    A :class:`SinkhornRebasin` with Adam on its scores, one step per batch, the data gone through again until all
    steps are done. :attr:`Alignment.objective` is the loss of every step, at soft permutations. It is the loop to
    start with; :class:`RebasinModule` under a Lightning Trainer has validation, checkpoints and callbacks.

    Args:
        reference, target: networks of one architecture, as modules, states or paths; neither is changed.
        spec: the symmetries, from :func:`discover_symmetry`.
        data: batches of (inputs, labels); not needed for ``"inner"``, ``"l1"`` and ``"l2"``.
        generator: draws the order of weight matching and the positions of ``"random_point"``.
        loss: ``"inner"``, ``"l1"`` or ``"l2"`` (see :class:`WeightDistance`), ``"midpoint"``, ``"random_point"``, or
            any callable (rebasin, batch) to a scalar, such as a :class:`FisherDistance`, which needs no data here.
        criterion: (outputs, labels) to a scalar, for ``"midpoint"`` and ``"random_point"``.
        steps: how many steps of Adam.
        lr: its learning rate.
        temperature: share of the steps done, 0 to 1, to τ; without it geometric from 1 to 0.1.
        start: where the scores start, as for :class:`SinkhornRebasin`.
        batch: a function from a batch to (inputs, labels), for data that yield something else; a loss of your own is
            given this pair.
        ignore: layers that each network keeps for itself, by name or pattern: see :meth:`PermutationSpec.ignoring`.

    Complexity: per step O(n²) a Sinkhorn iteration for a group of n units, and the loss with its backward. Use it
    where weight matching leaves a barrier: with ``"midpoint"`` or ``"random_point"`` when labelled data are at
    hand, with ``"inner"`` when not.

    Raises:
        ArchitectureError, SpecError: when the networks differ, are no modules, or the spec is of another one.
        DataError: when a loss needs data and has none.
        LossError: for an unknown name, or a loss that is no finite scalar.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> x, labels = torch.randn(16, 4), torch.randint(3, (16,))
        >>> spec, loss = discover_symmetry(a, x), nn.functional.cross_entropy
        >>> found = sinkhorn_matching(a, b, spec, data=[(x, labels)], loss="midpoint", criterion=loss, steps=20)
        >>> found.permutations["0"].sort().values.tolist() == list(range(8))
        True

    Source: Guerrero-Peña et al., "Re-basin via implicit Sinkhorn differentiation" (2023).
    """
    # The re-basin starts from weight matching, out of this folder: imported above, each would wait for the other.
    from sinkhorn_rebasin.rebasin.module import SinkhornRebasin

    reference, target = modules_of(reference, target)
    first, _, spec = as_states(reference, target, spec, ignore)
    generator = generator or torch.Generator().manual_seed(0)
    measure = _loss(loss, criterion, generator)
    batches = _endless(data, needed=not isinstance(measure, WeightDistance) and isinstance(loss, str))
    if not spec.groups:
        return Alignment({}, spec, method="sinkhorn_matching")
    rebasin = SinkhornRebasin(reference, target, spec=spec, start=start, generator=generator)
    schedule = temperature or geometric(1.0, 0.1)
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=lr)
    device, objective = device_of(first), []
    # Around all steps, not each: a loader that shuffles, augmentation and losses that draw go on from step to step.
    with torch.enable_grad(), untouched_randomness():
        for step in range(steps):
            given = next(batches)
            given = move_to(given if batch is None else read_batch(given, batch, labelled=False), device)
            rebasin.temperature.fill_(schedule(step / max(1, steps - 1)))
            if isinstance(measure, WeightDistance):
                measure.progress = step / steps
            optimizer.zero_grad()
            value = checked_loss(measure(rebasin, given))
            value.backward()
            optimizer.step()
            objective.append(value.item())
    permutations = {name: indices.cpu() for name, indices in rebasin.hard_permutations().items()}
    return Alignment(permutations, spec, tuple(objective), converged=False, method="sinkhorn_matching")


def _loss(loss: LossName | RebasinLoss, criterion: Criterion, generator: torch.Generator) -> RebasinLoss:
    if not isinstance(loss, str):
        return loss
    if loss == "inner" or loss == "l1" or loss == "l2":
        return WeightDistance(loss)
    if loss not in ("midpoint", "random_point"):
        raise LossError(
            f"Expected loss to be 'inner', 'l1', 'l2', 'midpoint', 'random_point' or a callable but got {loss!r}."
        )
    return MidpointLoss(criterion) if loss == "midpoint" else RandomPointLoss(criterion, generator=generator)


def _endless(data: Iterable[Any] | None, *, needed: bool) -> Iterator[Any]:
    """The batches, over and over; without data only None, for losses that look at none."""
    if data is not None:
        yield from endless_batches(data)
    if needed:
        raise DataError("Expected data, batches of (inputs, labels), for this loss but got None.")
    while True:
        yield None
