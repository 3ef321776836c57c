"""Geodesics between networks whose units are normalised: every unit moves along a great arc."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, NetworkLike, State
from sinkhorn_rebasin.connectivity.curves import StatePath
from sinkhorn_rebasin.connectivity.interpolation import common_type, lerp
from sinkhorn_rebasin.errors import ArchitectureError, SpecError
from sinkhorn_rebasin.files.given_networks import module_of
from sinkhorn_rebasin.networks.architecture import check_same, double_precision, real_view, tensors_of, wider
from sinkhorn_rebasin.permutations import Layout, PermutationSpec, RescalingSpec, Slot, normalize_state_scales
from sinkhorn_rebasin.permutations.action import units_first
from sinkhorn_rebasin.permutations.completeness import check_spec
from sinkhorn_rebasin.permutations.rescaling import ScaleSymmetry, along, check_rescaling
from sinkhorn_rebasin.permutations.scale_normalization import incoming
from sinkhorn_rebasin.symmetry import (
    NormFilter,
    discover_norm_filters,
    discover_rescaling,
    normalize_filters,
)

SMALLEST_ANGLE = 1e-4
"""Units whose angle is smaller move on the segment, which differs from the arc by less than rounding."""


class GeodesicPath(StatePath):
    r"""Join two states by a geodesic of normalised networks.

    Both ends are rescaled first, so that the incoming weights of every homogeneous unit have norm one; their
    functions stay. Filters that a batch norm follows get norm one too, for it divides their scale away. Then every
    unit moves along the great arc between its two places on the sphere:

    .. math:: w_i(\lambda) = \frac{\sin((1 - \lambda)\, \alpha_i)\, w_i(0) + \sin(\lambda \alpha_i)\, w_i(1)}
        {\sin \alpha_i}, \qquad \alpha_i = \angle\bigl(w_i(0), w_i(1)\bigr)

    What belongs to no such unit moves on the segment: outgoing weights of the last layer, norm statistics.

    - Halfway, a unit points where it does on the segment of the normalised networks, and is longer by
      1 / cos(α/2). Where all angles of a layer are alike, the geodesic therefore has the segment's classes, but for
      biases, and other losses: it mends shrunken activations, as :class:`RepairAlongPath` does.
    - Units that are dead in one network, or exactly opposite, have no shortest arc and move on the segment.
    - Signs are not looked at: align first, with the signs where units are odd.
    - Statistics of batch norm are mixed; :class:`BatchNormReset` as ``prepare`` measures them at every position.

    Args:
        module: the architecture, never changed.
        start: parameters and buffers at λ=0.
        end: parameters and buffers at λ=1.
        spec, rescaling: the architecture's symmetries.
        filters: those that a batch norm follows, from :func:`discover_norm_filters`.
        statistics: as for :class:`LinearPath`.

    Attributes:
        angles: α by tensor and axes, (length of the axes,), in radians; zero where no unit has incoming weights.
        distance: :math:`\sqrt{\sum_i \alpha_i^2}` over all units.

    Raises:
        ArchitectureError: names or shapes of a state differ from the module's.
        SpecError: states, spec and rescalings do not belong together, or a weight is on two spheres.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
        >>> x = torch.randn(4, 3)
        >>> path = GeodesicPath.between(a, b, discover_symmetry(a, x), example_inputs=x)
        >>> torch.allclose(path(x, at=0.0), a(x), atol=1e-5), torch.allclose(path(x, at=1.0), b(x), atol=1e-5)
        (True, True)
        >>> middle = path.state_at(0.5)
        >>> rows = torch.cat([middle["0.weight"], middle["0.bias"][:, None]], dim=1)
        >>> torch.allclose(rows.norm(dim=1), torch.ones(8))
        True

    Source: Pittorino, Ferraro, Perugini, Feinauer, Baldassi, Zecchina, "Deep networks on toroids: removing
    symmetries reveals the structure of flat regions in the landscape geometry" (2022).
    """

    def __init__(
        self,
        module: nn.Module,
        start: NetworkLike,
        end: NetworkLike,
        spec: PermutationSpec,
        rescaling: RescalingSpec,
        filters: Sequence[NormFilter] = (),
        statistics: Collection[str] = (),
    ) -> None:
        super().__init__(module, start, end, statistics)
        check_spec(spec)
        check_rescaling(rescaling)
        spheres = _spherical(spec, rescaling)
        own = {slot.tensor for one in spheres for slot in incoming(one)}
        filters = [one for one in filters if one.weight not in own]
        spheres += [_filters_of(one, self.start[one.weight]) for one in filters]
        with torch.no_grad():
            self.start, self.end = (
                normalize_filters(normalize_state_scales(state, spec, rescaling), filters)
                for state in (self.start, self.end)
            )
            arcs = {one: unit_angles(self.start, self.end, one) for one in spheres}
            self.angles = _by_tensor(arcs, self.start)
        self.distance = math.sqrt(sum(float(arc.square().sum()) for arc in arcs.values()))
        self._first = {name: names[0] for names in spec.tied for name in names}

    @classmethod
    def between(
        cls,
        start: NetworkLike,
        end: NetworkLike,
        spec: PermutationSpec,
        rescaling: RescalingSpec | None = None,
        *,
        example_inputs: ExampleInputs = None,
        statistics: Collection[str] = (),
    ) -> GeodesicPath:
        """Return the geodesic between two networks.

        Args:
            start: the target's place, λ = 0: the aligned target, say.
            end: the reference, λ = 1. One of the two may be weights alone.
            spec: their permutation symmetries.
            rescaling: their rescalings; found on ``example_inputs`` when it is None.
            example_inputs: a tensor, a tuple of positional or a dict of keyword arguments. With them, filters that a
                batch norm follows are found too.
            statistics: as for :class:`LinearPath`.

        Raises:
            ArchitectureError: networks that differ, or neither rescalings nor example inputs.
            SpecError: spec or rescalings of another network.
        """
        start, end = (module_of(*each) for each in ((start, "start", end), (end, "end", start)))
        check_same(tensors_of(start), tensors_of(end))
        if rescaling is None:
            if example_inputs is None:
                raise ArchitectureError(
                    "Expected rescalings, or example inputs to find them with, but got neither."
                )
            rescaling = discover_rescaling(start, spec, example_inputs, signs=False)
        filters = () if example_inputs is None else discover_norm_filters(start, example_inputs)
        return cls(start, tensors_of(start), tensors_of(end), spec, rescaling, filters, statistics)

    def tensor_at(self, name: str, at: float | Tensor) -> Tensor:
        """Return one tensor at a position."""
        arcs = self.angles.get(self._first.get(name, name))
        straight = lerp(self.start[name], self.end[name], at)
        if arcs is None:
            return straight
        first, last = common_type(self.start[name], self.end[name])
        wide = wider(first.dtype)
        for axes, angles in arcs.items():
            on_arc = angles > SMALLEST_ANGLE
            turn = torch.where(on_arc, angles, 1.0)
            shares = ((1 - at) * turn).sin() / turn.sin(), (at * turn).sin() / turn.sin()
            ours, theirs = (along(axes, first.shape, share).to(wide) for share in shares)
            round_arc = (ours * first.to(wide) + theirs * last.to(wide)).to(first.dtype)
            straight = torch.where(along(axes, first.shape, on_arc), round_arc, straight)
        return straight


def unit_angles(start: State, end: State, generator: ScaleSymmetry) -> Tensor:
    r"""Measure the angle between units of two networks.

    .. math:: \alpha = 2 \operatorname{atan2}(\lVert u - v \rVert, \lVert u + v \rVert)

    Here u and v are the normalised incoming weights. It is exact for small angles too.

    Args:
        start, end: tensor name to tensor.
        generator: whose incoming weights count.

    Returns:
        (units,) in double precision, in radians; zero for units that are dead or opposite.

    Example:
        >>> from sinkhorn_rebasin.permutations import Layout, Slot
        >>> rows = ScaleSymmetry("g", "positive", ((Slot("w", "w", (0,), Layout(1, 2)), 1),))
        >>> one, other = {"w": torch.tensor([[1.0, 0.0], [1.0, 1.0]])}, {"w": torch.tensor([[0.0, 2.0], [3.0, 3.0]])}
        >>> [round(angle, 6) for angle in unit_angles(one, other, rows).tolist()]
        [1.570796, 0.0]
    """
    slots = incoming(generator)
    units = []
    for state in (start, end):
        wide = {slot.tensor: double_precision(state[slot.tensor].detach()) for slot in slots}
        rows = [units_first(wide[slot.tensor], slot).flatten(0, 1) for slot in slots]
        parts = [real_view(row).flatten(1) for row in rows]
        weights = torch.cat(parts, dim=1)
        norms = weights.norm(dim=1, keepdim=True)
        units.append(torch.where(norms > 0, weights / norms, 0.0))
    apart, together = (units[0] - units[1]).norm(dim=1), (units[0] + units[1]).norm(dim=1)
    alive = (units[0].square().sum(1) > 0) & (units[1].square().sum(1) > 0)
    return torch.where(alive & (together > SMALLEST_ANGLE), 2 * torch.atan2(apart, together), 0.0)


def _spherical(spec: PermutationSpec, rescaling: RescalingSpec) -> list[ScaleSymmetry]:
    return [
        one for name in spec.names if name in rescaling.groups for one in rescaling.of(name) if incoming(one)
    ]


def _filters_of(one: NormFilter, weight: Tensor) -> ScaleSymmetry:
    slot = Slot(one.norm, one.weight, (one.axis,), Layout(1, weight.shape[one.axis]))
    return ScaleSymmetry(one.norm, "positive", ((slot, 1),))


def _by_tensor(
    arcs: Mapping[ScaleSymmetry, Tensor], state: State
) -> dict[str, dict[tuple[int, ...], Tensor]]:
    """Lay angles of units along their tensors' axes."""
    laid: dict[str, dict[tuple[int, ...], Tensor]] = {}
    taken: dict[str, set[tuple[tuple[int, ...], int]]] = {}
    for generator, angles in arcs.items():
        for slot in incoming(generator):
            tensor = state[slot.tensor]
            length = math.prod(tensor.shape[axis] for axis in slot.axes)
            flat = laid.setdefault(slot.tensor, {}).setdefault(slot.axes, torch.zeros(length).to(angles))
            table = torch.from_numpy(slot.layout.table()).flatten(0, 1)
            places = {(slot.axes, place) for place in table.flatten().tolist()}
            if len(laid[slot.tensor]) > 1 or places & taken.setdefault(slot.tensor, set()):
                raise SpecError(
                    f"Expected every weight in the incoming weights of one unit but {slot.tensor!r} is in those of "
                    f"two, one of them in group {generator.group!r}: take LinearPath, or leave this group out of the "
                    f"rescalings."
                )
            taken[slot.tensor] |= places
            flat[table.to(flat.device)] = angles[:, None].expand(table.shape)
    return laid
