"""Fisher merging: the mean in which each weight counts as much as its network's loss depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, NetworkLike, State
from sinkhorn_rebasin.curvature.diagonal import DiagonalFisher, diagonal_fisher
from sinkhorn_rebasin.curvature.likelihood import LabelKind
from sinkhorn_rebasin.errors import DataError
from sinkhorn_rebasin.matching.base import Alignment
from sinkhorn_rebasin.merging.aligned_networks import AlignedNetworks
from sinkhorn_rebasin.merging.fused_state import FusedState
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.networks.task_loss import task_loss


def fisher(
    networks: Sequence[NetworkLike],
    alignments: Sequence[Alignment],
    data: Sequence[Any],
    shares: Sequence[float] | None = None,
    *,
    criterion: Criterion = task_loss,
    labels: LabelKind = "sampled",
    normalized: bool = True,
    floor: float = 1e-6,
    batch: BatchAdapter | None = None,
) -> FusedState:
    r"""Fuse aligned networks by their Fisher information.

    .. math:: \theta_i = \frac{\sum_m w_m F_{m, i}\, \theta_{m, i}}{\sum_m w_m F_{m, i}}

    with each owner's diagonal F of its own network, carried by the alignment: permuted, and divided by squares of
    scales. Buffers are plain means.

    Args:
        networks: those that were aligned, in the same order; none is changed.
        alignments: one a network, such as a :class:`ManyAlignment`.
        data: per network, its :class:`DiagonalFisher`, or batches to measure it on.
        shares: w, one a network; equal without it.
        criterion, labels: as for :func:`diagonal_fisher`.
        normalized: divide each F by its norm, so that no network counts more than another.
        floor: of each F, so that what no loss depends on is a plain mean.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Returns:
        The state; ``print`` it to see which tensors were fitted.

    Raises:
        ArchitectureError: another number of networks or shares; layers of other shapes that are not kept apart.
        DataError: a Fisher information that is missing, negative or not finite; the tensor is named.
        SpecError: maps mix weights, and a diagonal is one number for each weight.

    Example:
        >>> from sinkhorn_rebasin.merging import match_many
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> nets = [torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)) for _ in "ab"]
        >>> x = torch.randn(64, 3)
        >>> fishers = [diagonal_fisher(net, [x]) for net in nets]  # by each owner
        >>> fisher(nets, match_many(nets, discover_symmetry(nets[0], x)), fishers)
        FusedState(fisher of 2 networks; 4 tensors fitted, 0 plain means)

    Source: Matena, Raffel, "Merging models with Fisher-weighted averaging" (2022).
    """
    if not floor >= 0:
        raise DataError(f"Expected a floor of zero or more but got {floor!r}.")
    aligned = AlignedNetworks.of(networks, alignments, shares)
    aligned.check_one_each(data)
    diagonals = []
    for number, (alignment, source) in enumerate(zip(alignments, data, strict=True)):
        found = source
        if not isinstance(source, DiagonalFisher):
            options: dict[str, Any] = {"labels": labels, "batch": batch}
            found = diagonal_fisher(aligned.module(number), source, criterion, **options)
        apart = aligned.spec.ignored
        compared = {name: value for name, value in found.diagonal.items() if name not in apart}
        _check_diagonal(compared, number, aligned)
        wide = {name: value.detach().to("cpu", _wide(value)) for name, value in compared.items()}
        diagonals.append(_scaled(alignment.carry(wide, "squared_gradient"), normalized, floor))
    names = [name for name in aligned.spec.compared if all(name in each for each in diagonals)]
    state = aligned.mean()
    fitted = {name: _mean(aligned, diagonals, name).to(state[name]) for name in names}
    missing = {
        n: "no Fisher information was measured of it" for n in aligned.spec.compared if n not in fitted
    }
    return FusedState.of({**state, **fitted}, "fisher", len(networks), aligned.spec, fitted, missing)


def _mean(aligned: AlignedNetworks, diagonals: Sequence[State], name: str) -> Tensor:
    """Return one tensor's weighted mean.

    Where nothing depends on it, the mean is plain.
    """
    parts = [real_view(state[name].detach().to("cpu", _wide(state[name]))) for state in aligned.states]
    weights = [share * real_view(each[name]) for share, each in zip(aligned.shares, diagonals, strict=True)]
    total = torch.stack(weights).sum(0)
    plain = torch.stack([s * part for s, part in zip(aligned.shares, parts, strict=True)]).sum(0)
    weighted = torch.stack([w * part for w, part in zip(weights, parts, strict=True)]).sum(0)
    mean = torch.where(total > 0, weighted / total.clamp_min(torch.finfo(total.dtype).tiny), plain)
    return torch.view_as_complex(mean) if aligned.states[0][name].is_complex() else mean


def _scaled(diagonal: State, normalized: bool, floor: float) -> State:
    """Divide by the norm of all numbers.

    What is below the floor is raised to it.
    """
    total = sum(float(real_view(value).square().sum()) for value in diagonal.values()) ** 0.5
    scale = 1 / total if normalized and total > 0 else 1.0
    return {name: _raised(value * scale, floor) for name, value in diagonal.items()}


def _raised(values: Tensor, floor: float) -> Tensor:
    raised = real_view(values).clamp_min(floor)
    return torch.view_as_complex(raised) if values.is_complex() else raised


def _check_diagonal(diagonal: State, number: int, aligned: AlignedNetworks) -> None:
    if not diagonal:
        raise DataError(f"Expected a Fisher information of network {number} but it holds no tensor.")
    for name, values in diagonal.items():
        of, shape = f"the Fisher information of {name!r} of network {number}", aligned.spec.shapes.get(name)
        if shape is None or tuple(values.shape) != tuple(shape):
            raise DataError(f"Expected {of} in shape {shape} but got {tuple(values.shape)}.")
        parts = real_view(values)
        if not bool(parts.isfinite().all()) or not bool((parts >= 0).all()):
            raise DataError(f"Expected {of} to be finite and zero or more but some of its numbers are not.")


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64
