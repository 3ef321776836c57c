"""A LoRA's tensors in the coordinates of another base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.carrying.adapters.parts import Factors
from sinkhorn_rebasin.carrying.update import wide
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.matching.coordinates import Coordinates
from sinkhorn_rebasin.networks.architecture import named_tensors


def moved_factors(pair: Factors, coordinates: Coordinates, new_weight: Tensor, scale: float) -> State:
    r"""Carry a pair of factors.

    .. math:: A' = A\,N, \qquad B' = s\,P B, \qquad P\,(BA)\,N \text{ being how the weight's update moves}

    A's inputs move as the weight's readers do, and B's outputs as its writers. What DoRA multiplies each output by,
    :math:`\rho = m / \lVert W + \Delta W \rVert`, goes along with the output:

    .. math:: m' = \bigl(1 + s\,(\rho' - 1)\bigr)\, \lVert W' + \Delta W' \rVert

    Args:
        pair: the factors, with the old base's gains in ``magnitude``, see :func:`with_gains`.
        coordinates: of the alignment.
        new_weight: of the new base.
        scale: s.

    Returns:
        The tensors by their names in the adapter.

    Raises:
        SpecError: an axis moves together with another one.
        ArchitectureError: a DoRA's outputs are mixed by maps; the weight is named.
    """
    inputs = coordinates.along(pair.inputs, pair.weight, pair.input_axis, 1)
    outputs = coordinates.along(wide(pair.outputs), pair.weight, pair.output_axis, 0)
    new = replace(pair, inputs=inputs, outputs=(scale * outputs).to(pair.outputs.dtype))
    if pair.bias is not None:
        bias = coordinates.along(wide(pair.bias), pair.weight, pair.output_axis, 0)
        new = replace(new, bias=(scale * bias).to(pair.bias.dtype))
    if pair.magnitude is not None:
        _check_unmixed(pair, coordinates)
        # Gains are one number for each output, which neither signs nor scales change.
        alone = replace(coordinates, rescaling=None, signs={}, log_scales={})
        gains = alone.along(wide(pair.magnitude).flatten(), pair.weight, pair.output_axis, 0)
        magnitude = (1 + scale * (gains - 1)) * pair.norms(wide(new_weight) + new.product())
        new = replace(new, magnitude=magnitude)
    return new.tensors()


def with_gains(pair: Factors, weight: Tensor) -> Factors:
    """Put what DoRA multiplies outputs by in place of the magnitudes."""
    return replace(pair, magnitude=pair.gains(weight))


def moved_tensors(
    replaced: StateLike,
    base: nn.Module,
    new_base: nn.Module,
    coordinates: Coordinates,
    scales: Mapping[str, float],
) -> State:
    r"""Carry tensors that an adapter saves whole, such as biases and heads.

    .. math:: \theta' = \theta_{\mathrm{new}} + s\,\pi(\theta_{\mathrm{saved}} - \theta_{\mathrm{base}})

    Buffers are the new base's.
    """
    parameters = {name for name, _ in base.named_parameters(remove_duplicate=False)}
    first, second = named_tensors(base), named_tensors(new_base)
    moved: State = {}
    for name, saved in replaced.items():
        start = second[name].detach()
        if name not in parameters:
            moved[name] = start.clone()
            continue
        difference = torch.where(
            saved == first[name].to(saved), 0.0, wide(saved) - wide(first[name]).to(saved.device)
        )
        for axis in range(difference.ndim):
            difference = coordinates.along(difference, name, axis, axis)
        moved[name] = (wide(start).to(saved.device) + scales[name] * difference).to(saved.dtype)
    return moved


def _check_unmixed(pair: Factors, coordinates: Coordinates) -> None:
    known: Any = coordinates.continuous.symmetries if coordinates.continuous is not None else ()
    for symmetry in known:
        for slot, _ in symmetry.exponents:
            if slot.tensor == pair.weight and pair.output_axis in slot.axes:
                raise ArchitectureError(
                    f"Expected outputs of {pair.weight!r} that are permuted, since DoRA has one magnitude for each, "
                    f"but group {symmetry.group.name!r} is turned by a map, which mixes them: pass an alignment of "
                    f"permutations."
                )
