"""The networks that a merged one was made of: their parts in it, and the statistics of their units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.errors import DataError


def weights_of_endpoints(at: float | Sequence[float] | None, number: int) -> tuple[float, ...]:
    """Return the part of each network, the reference first.

    Args:
        at: the part of the reference in a merge of two, or the parts of all; None gives each the same.
        number: how many networks there are.

    Raises:
        DataError: the parts are negative, do not add up to 1, or are not one for each network.

    >>> weights_of_endpoints(0.25, 2), weights_of_endpoints(None, 4)
    ((0.25, 0.75), (0.25, 0.25, 0.25, 0.25))
    """
    if at is None:
        return (1 / number,) * number
    if isinstance(at, (int, float)):
        if number > 2:
            raise DataError(
                f"Expected a weight for each of the {number} networks but got the position {at}: pass them as "
                f"at=(weight of the reference, weight of the first target, …), or leave it out for equal parts."
            )
        if not 0 <= at <= 1:
            raise DataError(f"Expected a position from 0 (target) to 1 (reference) but got {at}.")
        return (float(at), 1 - float(at))
    weights = tuple(float(weight) for weight in at)
    if len(weights) != number:
        raise DataError(f"Expected a weight for each of the {number} networks but got {len(weights)}.")
    if not (min(weights) >= 0 and abs(sum(weights) - 1) <= 1e-6):
        raise DataError(f"Expected weights of at least 0 that add up to 1 but got {weights}.")
    return weights


def nearest_weights(
    states: Sequence[StateLike], state: StateLike, parameters: Iterable[str]
) -> tuple[float, ...]:
    """Find the mixture of networks nearest to a state.

    Returns the part of each network in it.

    Args:
        states: of the networks; of equal ones the last has the part of both.
        state: the mixture.
        parameters: names of the tensors that count.

    >>> ends = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}, {"w": torch.zeros(2)}]
    >>> [round(weight, 6) for weight in nearest_weights(ends, {"w": torch.tensor([0.5, 0.25])}, ["w"])]
    [0.5, 0.25, 0.25]
    """
    *others, base = states
    gram = torch.zeros(len(others), len(others), dtype=torch.float64)
    along = torch.zeros(len(others), dtype=torch.float64)
    for name in parameters:
        start = base[name]
        if not start.is_floating_point() or start.layout != torch.strided:
            continue
        start = start.double()
        steps = torch.stack([other[name].to(start) - start for other in others]).flatten(1)
        moved = (state[name].to(start) - start).flatten()
        finite = steps.isfinite().all(0) & moved.isfinite()
        steps, moved = steps[:, finite], moved[finite]
        gram += (steps @ steps.T).cpu()
        along += (steps @ moved).cpu()
    found = torch.linalg.pinv(gram, hermitian=True) @ along
    weights = torch.cat([found, 1 - found.sum(0, keepdim=True)]).clamp(min=0)
    return tuple((weights / weights.sum()).tolist())


class Endpoints:
    """Hold the layers' moments in all merged networks.

    They are moments of each layer's outputs.

    Args:
        moments: of each network, by the name of the layer.
    """

    def __init__(self, moments: Sequence[Mapping[str, Moments]]) -> None:
        self.moments = moments

    def correction(
        self, layer: AffineLayer, now: Moments, weights: Sequence[float], rescale_only: bool
    ) -> tuple[Tensor, Tensor] | None:
        """Correct a layer to the networks' mean statistics.

        Scale and shift, each (outputs,), give its hidden units the weighted mean of the statistics. None where fewer
        than two values reached the layer in one of the networks.

        Args:
            layer: the layer.
            now: moments of its outputs in the merged network.
            weights: the part of each network.
            rescale_only: leave the means.
        """
        ends = [moments[layer.name] for moments in self.moments]
        if min(found.count for found in (now, *ends)) < 2:
            return None
        mean = now.mean if rescale_only else _mixed([end.mean for end in ends], weights)
        deviation = _mixed([end.deviation() for end in ends], weights)
        found = now.deviation()
        # Below this the variation is round-off, and nothing to divide by.
        varies = found > 1e-6 * now.mean.abs()
        scale = torch.where(varies, deviation / found, 1.0)
        # In this order of operations a network that already has the statistics keeps its very bias.
        shift = mean - now.mean * scale
        hidden = torch.zeros(layer.outputs, dtype=torch.bool, device=scale.device)
        hidden[list(layer.units)] = True
        return torch.where(hidden, scale, 1.0), torch.where(hidden, shift, 0.0)


def _mixed(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted mean.

    Equal values, and those of a network that has all the weight, are met exactly.
    """
    largest = max(range(len(weights)), key=weights.__getitem__)
    base = values[largest]
    return base + sum(
        weight * (value - base) for value, weight in zip(values, weights, strict=True) if value is not base
    )
