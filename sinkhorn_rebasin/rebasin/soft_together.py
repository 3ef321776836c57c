"""Soft permutations of several re-basins in one run of Sinkhorn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sinkhorn_rebasin.assignment.batched import sinkhorn_by_size
from sinkhorn_rebasin.rebasin.module import SinkhornRebasin


def soft_permutations_together(rebasins: Sequence[SinkhornRebasin]) -> list[dict[str, Tensor]]:
    """Return each re-basin's soft permutations.

    They are those of :meth:`SinkhornRebasin.soft_permutations`. Small groups of all re-basins run as one batch.
    Re-basins with candidates run one by one.

    Args:
        rebasins: at least one, all at the temperature and tolerance of the first.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> rebasins = [SinkhornRebasin(nets[0], net, torch.randn(2, 4)) for net in nets[1:]]
        >>> [matrices["0"].shape for matrices in soft_permutations_together(rebasins)]
        [torch.Size([8, 8]), torch.Size([8, 8])]
    """
    if any(rebasin.candidates for rebasin in rebasins):
        return [rebasin.soft_permutations() for rebasin in rebasins]
    first = rebasins[0]
    places = [(number, name) for number, rebasin in enumerate(rebasins) for name in rebasin.scores]
    results = sinkhorn_by_size(
        {f"{number} {name}": rebasins[number].scores[name] for number, name in places},
        float(first.temperature),
        tolerance=first.tolerance,
        max_iterations=first.max_iterations,
        initial_scalings={f"{m} {name}": getattr(rebasins[m].scalings, name) for m, name in places},
    )
    found: list[dict[str, Tensor]] = [{} for _ in rebasins]
    for number, name in places:
        result = results[f"{number} {name}"]
        found[number][name] = result.matrix
        if rebasins[number].training:
            getattr(rebasins[number].scalings, name).copy_(result.column_scaling)
    return found
