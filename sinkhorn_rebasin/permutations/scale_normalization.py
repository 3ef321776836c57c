"""One representative of all rescalings of a network: every unit's incoming weights have norm one."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ConvergenceWarning
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.rescaling import (
    RescalingSpec,
    ScaleSymmetry,
    check_rescaling,
    rescale_state,
)
from sinkhorn_rebasin.permutations.slots import Slot, by_first_slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec


def normalize_state_scales(
    state: StateLike,
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    *,
    tolerance: float | None = None,
    max_sweeps: int = 100,
) -> State:
    r"""Rescale every unit to incoming weights of norm one.

    Incoming weights are those with positive exponents.

    .. math:: s_i = \Big( \sum_{k:\, e_k > 0} \lVert \theta_k[i] \rVert^2 \Big)^{-1/(2 e)}, \qquad
        e = \max_k e_k

    with a sum over the slots with that exponent: weight and bias, or scale and bias of a norm layer. Scaling one
    group's outgoing weights changes the norms of the next group: groups are swept, in the order they show up in,
    until all norms are one, which for a chain of layers takes one sweep. Units without incoming weights stay as
    they are.

    Args:
        state: tensor name to tensor.
        spec, rescaling: the architecture's symmetries.
        tolerance: largest difference of the logarithm of a norm from zero; None: what the type allows.
        max_sweeps: sweeps before a :class:`ConvergenceWarning`: around a cycle norms may not all become one.

    Raises:
        SpecError: when state, spec and rescalings do not belong together.

    Example:
        >>> from torch import nn
        >>> from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> state = normalize_state_scales(net.state_dict(), spec, discover_rescaling(net, spec, torch.randn(4, 3)))
        >>> torch.allclose(state["0.weight"].norm(dim=1), torch.ones(8))
        True

    Source: Pittorino et al., "Deep networks on toroids: removing symmetries reveals the structure of flat regions
    in the landscape geometry" (2022); sweeps: Stock et al., "Equi-normalization of neural networks" (2019).
    """
    moved: State = dict(state)
    check_state(spec, moved)
    check_rescaling(rescaling)
    order = [group.name for group in by_first_slot(spec.groups, spec.slots) if group.name in rescaling.groups]
    generators = [(one, place) for name in order for place, one in enumerate(rescaling.of(name))]
    if tolerance is None:
        types = [moved[slot.tensor].dtype for one, _ in generators for slot, _ in one.exponents]
        tolerance = 10 * max((torch.finfo(dtype).eps for dtype in types), default=0.0)
    for _ in range(max_sweeps):
        largest = 0.0
        for generator, place in generators:
            logs = _log_scales(moved, spec, generator)
            largest = max(largest, float(logs.abs().max()))
            shape = rescaling.shapes(spec)[generator.group]
            scales = torch.zeros(shape, dtype=logs.dtype, device=logs.device)
            scales[place] = logs.reshape(shape[1:])
            moved = rescale_state(moved, spec, rescaling, {generator.group: scales})
        if largest <= tolerance:
            return _typed(moved, state)
    if generators:
        warnings.warn(
            f"Expected incoming norms of one after {max_sweeps} sweeps but the largest logarithm of a scale is still "
            f"{largest:.1e}; the function is unchanged all the same.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return _typed(moved, state)


def incoming(generator: ScaleSymmetry) -> list[Slot]:
    """List the slots whose weights a generator normalizes.

    Those are the slots with its largest exponent, where that is positive.
    """
    largest = max(exponent for _, exponent in generator.exponents)
    return [slot for slot, exponent in generator.exponents if exponent == largest > 0]


def unit_norms(state: StateLike, spec: PermutationSpec, generator: ScaleSymmetry) -> Tensor:
    """Measure the norm of every unit's incoming weights.

    The result has the group's shape.
    """
    slots = incoming(generator)
    squares = torch.stack([_squares(state[slot.tensor], slot) for slot in slots]).sum(0)
    return squares.sqrt().reshape(spec[generator.group].shape)


def _log_scales(state: State, spec: PermutationSpec, generator: ScaleSymmetry) -> Tensor:
    largest = max(exponent for _, exponent in generator.exponents)
    if largest <= 0:
        return torch.zeros(spec[generator.group].shape)
    norms = unit_norms(state, spec, generator)
    return torch.where(norms > 0, -norms.log() / largest, 0.0)


def _squares(tensor: Tensor, slot: Slot) -> Tensor:
    wide = torch.promote_types(tensor.abs().dtype, torch.float32)
    front = tensor.detach().abs().to(wide).square().movedim(slot.axes, tuple(range(len(slot.axes))))
    flat = front.reshape(math.prod(tensor.shape[axis] for axis in slot.axes), -1).sum(1)
    table = torch.from_numpy(slot.layout.table()).to(tensor.device)
    return flat[table].sum(-1)


def _typed(moved: State, like: StateLike) -> State:
    return {name: tensor.to(like[name].dtype) for name, tensor in moved.items()}
