"""Whether a merge pays: its loss beside that of its members and of their ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.connectivity.evaluate_path import evaluate_state
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.front.criteria import criterion_for, output_of
from sinkhorn_rebasin.front.data import check_readable
from sinkhorn_rebasin.merging.ensemble import Ensemble
from sinkhorn_rebasin.merging.states import check_modules, check_several
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.counting import classifies, compares_classes
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.shown import html_table


@dataclass(frozen=True)
class Score:
    """Hold the loss and the accuracy of one network.

    Attributes:
        loss: mean over what counts in the data.
        accuracy: fraction of samples classified correctly; None where that has no meaning.
    """

    loss: float
    accuracy: float | None = None

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {100 * self.accuracy:.2f} %"
        return f"loss {self.loss:.4f}{accuracy}"


@dataclass(frozen=True, repr=False)
class Comparison:
    """Hold how a merge does beside its members.

    Attributes:
        members: one score a network.
        merged: that of the merge, at the cost of one network.
        ensemble: that of the mean of outputs, at the cost of all; None where outputs cannot be averaged.

    Example:
        >>> comparison = Comparison((Score(0.3), Score(0.4)), Score(0.25), Score(0.2))
        >>> comparison.best, comparison.merge_is_better, round(comparison.share_of_ensemble, 2)
        (0, True, 0.5)
    """

    members: tuple[Score, ...]
    merged: Score
    ensemble: Score | None = None

    @property
    def best(self) -> int:
        """Return the number of the best member.

        It has the lowest loss.
        """
        return min(range(len(self.members)), key=lambda number: self.members[number].loss)

    @property
    def merge_is_better(self) -> bool:
        """Tell whether the merge is better than all members."""
        return self.merged.loss < self.members[self.best].loss

    @property
    def share_of_ensemble(self) -> float | None:
        """Return the share of the way to the ensemble.

        The way begins at the best member.

        It is 1 for as good as the ensemble, 0 for as good as the best member, and below 0 for worse. None without an
        ensemble that is better than the best member.
        """
        best = self.members[self.best].loss
        if self.ensemble is None or not self.ensemble.loss < best:
            return None
        return (best - self.merged.loss) / (best - self.ensemble.loss)

    def rows(self) -> list[tuple[str, str]]:
        """Return what is told, as (name, value)."""
        count, best = len(self.members), self.best
        losses = [member.loss for member in self.members]
        rows = [
            ("best member", f"{self.members[best]} (number {best}; losses up to {max(losses):.4f})"),
            ("merged", str(self.merged)),
        ]
        if self.ensemble is not None:
            rows.append(("ensemble", f"{self.ensemble}, at {count} times the cost"))
        return [*rows, ("verdict", self._verdict())]

    def _verdict(self) -> str:
        difference = abs(self.merged.loss - self.members[self.best].loss)
        if self.merge_is_better:
            share = self.share_of_ensemble
            told = "" if share is None else f", {100 * share:.0f} % of the way to the ensemble"
            return f"the merge is better than every member, by {difference:.4f}{told}"
        return (
            f"the merge is worse than the best member, by {difference:.4f}: keep that member, or distil the ensemble "
            "into it"
        )

    def __repr__(self) -> str:
        return f"Comparison({len(self.members)} members; {self._verdict().partition(':')[0]})"

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(["Members and merge", *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def _repr_html_(self) -> str:
        return html_table("Members and merge", self.rows())


@torch.no_grad()
def compare(
    networks: Sequence[nn.Module],
    merged: nn.Module,
    dataloader: Iterable[Any],
    criterion: Criterion | None = None,
    *,
    batch: BatchAdapter | None = None,
) -> Comparison:
    r"""Compare a merge with its members and ensemble.

    All are measured on the same batches, in eval mode. The ensemble averages probabilities where labels are classes,

    .. math:: \log \frac1M \sum_m \operatorname{softmax}(f_m(x)),

    and outputs elsewhere. Nothing that is passed in is changed.

    - The data should be held out from the training of all.
    - Differences smaller than those between two samples of data mean nothing.

    Args:
        networks: at least two members.
        merged: what they were merged into, with :func:`align` or any other way.
        dataloader: batches of (inputs, labels), or what ``batch`` understands.
        criterion: (outputs, labels) to the mean loss of a batch; None: as for :func:`align`.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        Scores and a verdict; ``print`` it.

    Raises:
        ArchitectureError: fewer than two members, or something that is no module.
        DataError: no batch, or batches without labels.
        LossError: no criterion for what the networks return.

    Example:
        >>> members = [nn.Linear(3, 2), nn.Linear(3, 2)]
        >>> batches = [(torch.randn(8, 3), torch.randint(2, (8,)))]
        >>> compare(members, members[0], batches).merge_is_better
        False

    Source: this package.
    """
    check_several(networks, "to compare")
    check_modules(
        {f"member {number}": member for number, member in enumerate(networks)} | {"the merge": merged}
    )
    check_readable("dataloader", dataloader)
    with untouched_randomness():
        first = next(iter(dataloader), None)
    if first is None:
        raise DataError("Expected at least one batch to compare on but the dataloader is empty.")
    measure = criterion_for(networks[0], first, criterion, None, batch) or task_loss

    def read(found: Any) -> tuple[Any, Any]:
        return read_batch(found, batch, network=networks[0], criterion=measure)

    def score(network: nn.Module) -> Score:
        module = evaluation_copy(network)
        with untouched_randomness():
            return Score(*evaluate_state(module, tensors_of(network), dataloader, measure, batch=read))

    ensemble = _ensemble(networks, first, measure, batch)
    return Comparison(
        tuple(score(network) for network in networks),
        score(merged),
        None if ensemble is None else score(ensemble),
    )


def _ensemble(
    networks: Sequence[nn.Module], first: Any, criterion: Criterion, batch: BatchAdapter | None
) -> Ensemble | None:
    """Return the ensemble.

    It is one of probabilities where labels are classes, and None where no tensors are returned.
    """
    inputs, labels = read_batch(first, batch, network=networks[0], criterion=criterion)
    outputs = output_of(networks[0], inputs)
    if not isinstance(outputs, Tensor):
        return None
    classes = compares_classes(criterion) is not False and classifies(outputs, labels)
    return Ensemble(networks, 1 if classes else None)
