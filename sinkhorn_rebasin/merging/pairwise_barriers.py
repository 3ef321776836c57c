"""Loss barriers between every two of several aligned networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion
from sinkhorn_rebasin.activations import BatchNormReset, RepairAlongPath
from sinkhorn_rebasin.connectivity import evaluate_path
from sinkhorn_rebasin.connectivity.evaluate_path import Prepare
from sinkhorn_rebasin.networks.batches import batches_in
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.completeness import check_spec


def pairwise_barriers(
    networks: Sequence[nn.Module],
    spec: PermutationSpec,
    data: Iterable[Any],
    criterion: Criterion = task_loss,
    *,
    points: int = 5,
    statistics: Iterable[Any] | None = None,
    repair: bool = False,
    batch: BatchAdapter | None = None,
) -> Tensor:
    r"""Measure the loss barrier between every two networks.

    .. math:: B_{pq} = \max_\lambda\, \mathcal C\bigl((1-\lambda)\, \theta_p + \lambda\, \theta_q\bigr)
        - (1-\lambda)\, \mathcal C(\theta_p) - \lambda\, \mathcal C(\theta_q)

    Args:
        networks: in one order of units: see :meth:`ManyAlignment.barriers`.
        spec: their symmetries; layers that it ignores are the later network's of a pair.
        data: held-out batches that can be read again and again.
        criterion: (outputs, labels) to the mean loss of a batch.
        points: positions on each path, odd.
        statistics: training batches on which batch norm is measured anew.
        repair: do REPAIR with them.
        batch: a function from a batch to (inputs, labels).

    Returns:
        (M, M), symmetric, zero on its diagonal, in the unit of the loss.

    Raises:
        DataError: no batch, or one that is not understood.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> batches = [(torch.randn(8, 4), torch.randint(3, (8,)))]
        >>> spec = PermutationSpec((), (), {name: tuple(t.shape) for name, t in net.state_dict().items()})
        >>> pairwise_barriers([net, net], spec, batches).abs().max().item() < 1e-6
        True

    Source of the barrier: Frankle, Dziugaite, Roy, Carbin, "Linear Mode Connectivity and the Lottery Ticket
    Hypothesis" (2020).
    """
    check_spec(spec)
    with untouched_randomness():
        batches = None if statistics is None else list(batches_in(statistics, "statistics"))
    found = torch.zeros(len(networks), len(networks), dtype=torch.float64)
    for p, q in itertools.combinations(range(len(networks)), 2):
        pair = networks[p], networks[q]
        prepare: Prepare | None = None if batches is None else BatchNormReset(batches, batch=batch)
        if repair and batches is not None:
            prepare = RepairAlongPath(pair[1], pair[0], spec, batches, batch=batch)
        heads: dict[str, Any] = {"heads": "reference", "ignore": sorted(spec.ignored)} if spec.ignored else {}
        path = evaluate_path(pair, data, criterion, points=points, prepare=prepare, batch=batch, **heads)
        found[p, q] = found[q, p] = float(path.barrier)
    return found
