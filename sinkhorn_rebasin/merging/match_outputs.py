"""Permutations learned so that a merged trunk answers as both networks do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import DataError, SpecError
from sinkhorn_rebasin.losses.base import checked_loss, mean_loss
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.both_outputs import BothOutputsLoss
from sinkhorn_rebasin.merging.repeatable import repeatable
from sinkhorn_rebasin.networks.batches import endless_batches
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.rebasin.initialization import Start
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin


@torch.inference_mode(False)
def match_outputs(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    *,
    data: Iterable[Any] | None = None,
    validation: Iterable[Any] | None = None,
    start: Start = "weight_matching",
    steps: int = 200,
    lr: float = 0.1,
    temperatures: tuple[float, float] = (0.5, 0.05),
    every: int = 20,
    heads: Sequence[str] | None = None,
    batch: BatchAdapter | None = None,
    generator: torch.Generator | None = None,
) -> Alignment:
    r"""Learn permutations so one trunk serves both heads.

    .. math:: \min_P\; \mathcal L\Bigl(h_R \circ t, f_R\Bigr) + \mathcal L\Bigl(\pi_P(h_T) \circ t, f_T\Bigr), \qquad
        t = \tfrac12\, \pi_P(\theta_T) + \tfrac12\, \theta_R

    with the squared error of :class:`BothOutputsLoss` and soft permutations, annealed. No labels are used. Of the
    start and the hard permutations met every so many steps, those with the least loss on the validation batches are
    returned: the start is never made worse there.

    Args:
        reference, target: modules of one architecture but for their heads; neither is changed.
        spec: their symmetries, from :func:`discover_symmetry`.
        data: batches of (inputs, labels) or of inputs alone, gone through again until all steps are done.
        validation: batches on which hard permutations are judged; None: the first four of the data.
        start: where the scores start, as for :class:`SinkhornRebasin`.
        steps, lr: of Adam.
        temperatures: first and last τ, with a geometric decay between.
        every: judge after so many steps.
        heads: names or patterns of the last layers; None: all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        generator: draws the order of weight matching.

    Returns:
        Hard permutations, for :func:`merge_trunks` and :func:`pleas`. Objectives are the validation losses.

    Raises:
        ArchitectureError, SpecError: networks that differ in more than heads, nested groups, or ``every`` below one.
        DataError: no data, or an iterator, which cannot be gone through twice.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n)) for n in (3, 2))
        >>> x = torch.randn(16, 4)
        >>> found = match_outputs(a, b, discover_symmetry(a, x), data=[x], steps=20, every=10)
        >>> min(found.objective) <= found.objective[0]
        True
    """
    if every < 1:
        raise SpecError(f"Expected to judge every one or more steps but got every={every}.")
    given = repeatable(data)
    judged = _first(given, 4) if validation is None else repeatable(validation)
    loss = BothOutputsLoss(reference, target, spec, heads=heads, batch=batch)
    spec = loss.networks.spec
    if not spec.groups:
        return Alignment({}, spec, method="match_outputs")
    rebasin = SinkhornRebasin(reference, target, spec=spec, start=start, generator=generator)
    optimizer = torch.optim.Adam(rebasin.parameters(), lr=lr)
    schedule, batches = geometric(*temperatures), endless_batches(given)
    best, values = rebasin.hard_permutations(), [mean_loss(rebasin, loss, judged)]
    with torch.enable_grad(), untouched_randomness():
        for step in range(steps):
            rebasin.temperature.fill_(schedule(step / max(1, steps - 1)))
            optimizer.zero_grad()
            checked_loss(loss(rebasin, next(batches))).backward()
            optimizer.step()
            if (step + 1) % every == 0 or step + 1 == steps:
                value = mean_loss(rebasin, loss, judged)
                best = rebasin.hard_permutations() if value < min(values) else best
                values.append(value)
    permutations = {name: order.cpu() for name, order in best.items()}
    return Alignment(permutations, spec, tuple(values), converged=False, method="match_outputs")


def _first(data: Iterable[Any], count: int) -> list[Any]:
    with untouched_randomness():
        found = list(islice(data, count))
    if not found:
        raise DataError("Expected at least one batch but got none.")
    return found
