"""Rescalings of hidden units that leave the function as it is: the data type, and the action on weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import SpecError, listed
from sinkhorn_rebasin.permutations.completeness import check_kind, check_spec, check_state
from sinkhorn_rebasin.permutations.layout import Layout
from sinkhorn_rebasin.permutations.slots import Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.shown import html_table

Kind: TypeAlias = Literal["positive", "sign"]
GroupKind: TypeAlias = Literal["positively homogeneous", "odd", "neither"]
Factors: TypeAlias = Mapping[str, Tensor]
"""Group name to one number per generator and unit: (generators, n), or (generators, blocks, n) when nested."""


@dataclass(frozen=True, repr=False)
class ScaleSymmetry:
    r"""Describe one way to scale a group's units.

    Slot k of unit i is multiplied by :math:`s_i^{e_k}`. A slot here may be a part of one of the spec's: the queries
    or the keys of a packed projection.

    Attributes:
        group: name of the group.
        kind: ``"positive"`` for every s > 0, ``"sign"`` for s = ±1.
        exponents: the slots with their :math:`e_k`; those with exponent zero are left out.
    """

    group: str
    kind: Kind
    exponents: tuple[tuple[Slot, int], ...]

    def __repr__(self) -> str:
        slots = listed(f"{place_of(slot)} {exponent:+d}" for slot, exponent in self.exponents)
        return f"ScaleSymmetry({self.group}, {self.kind}: {slots})"

    def __str__(self) -> str:
        slots = ", ".join(f"{place_of(slot)} {exponent:+d}" for slot, exponent in self.exponents)
        return f"{self.group} ({self.kind}): {slots}"


def place_of(slot: Slot) -> str:
    """Name a slot's tensor, axes and start.

    The start is left out where the units begin at the beginning.
    """
    axes = ",".join(map(str, slot.axes))
    return f"{slot.tensor}[{axes}{f' from {slot.layout.offset}' if slot.layout.offset else ''}]"


@dataclass(frozen=True, repr=False)
class RescalingSpec:
    """Hold the exact rescalings of one architecture by group.

    >>> RescalingSpec(groups=("hidden",)).kind_of("hidden")
    'neither'
    """

    groups: tuple[str, ...]
    generators: tuple[ScaleSymmetry, ...] = ()

    def __repr__(self) -> str:
        found: dict[GroupKind, list[str]] = {}
        for group in self.groups:
            found.setdefault(self.kind_of(group), []).append(group)
        kinds = "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in found.items())
        return f"RescalingSpec({len(self.groups)} groups, {len(self.generators)} generators; {kinds})"

    def _repr_html_(self) -> str:
        rows = [(f"{each.group} ({each.kind})", str(each).partition("): ")[2]) for each in self.generators]
        return html_table("RescalingSpec", rows or [("rescalings", "none")])

    def of(self, group: str, kind: Kind = "positive") -> tuple[ScaleSymmetry, ...]:
        """List a group's generators in order of its factors."""
        if group not in self.groups:
            raise SpecError(f"Expected one of the groups {list(self.groups)} but got {group!r}.")
        return self._by_group.get((group, kind), ())

    @cached_property
    def _by_group(self) -> dict[tuple[str, Kind], tuple[ScaleSymmetry, ...]]:
        found: dict[tuple[str, Kind], tuple[ScaleSymmetry, ...]] = {}
        for generator in self.generators:
            key = (generator.group, generator.kind)
            found[key] = (*found.get(key, ()), generator)
        return found

    def kind_of(self, group: str) -> GroupKind:
        """Tell what a group's units pass through.

        It is positively homogeneous (ReLU, none), odd (tanh), or neither (GELU). Positively homogeneous when a
        rescaling by any s > 0 was found, odd when only flips of the sign were.
        """
        if self.of(group, "positive"):
            return "positively homogeneous"
        return "odd" if self.of(group, "sign") else "neither"

    def without_signs(self) -> RescalingSpec:
        """Leave out the flips of sign.

        >>> NO_RESCALING.without_signs().generators
        ()
        """
        return replace(self, generators=tuple(each for each in self.generators if each.kind == "positive"))

    def shapes(self, spec: PermutationSpec, kind: Kind = "positive") -> dict[str, tuple[int, ...]]:
        """Return the shapes of one kind's factors by group.

        Groups without generators are left out.

        Raises:
            SpecError: when a generator is none of this spec's network.
        """
        check_spec(spec)
        for generator in self.generators:
            strangers = [slot.tensor for slot, _ in generator.exponents if slot.tensor not in spec.shapes]
            if generator.group not in spec or strangers:
                raise SpecError(
                    f"Expected rescalings of the groups of this spec, {spec.names}, but got one of group "
                    f"{generator.group!r} on {[slot.tensor for slot, _ in generator.exponents]}. Were the "
                    f"rescalings discovered on another network, or before a group was dropped?"
                )
        found = {name: len(self.of(name, kind)) for name in spec.names if name in self.groups}
        return {name: (count, *spec[name].shape) for name, count in found.items() if count}

    def __str__(self) -> str:
        return "\n".join(map(str, self.generators)) or "no rescalings"


NO_RESCALING = RescalingSpec(groups=())


def check_rescaling(rescaling: object) -> None:
    """Raise :class:`SpecError` for what is no rescalings.

    >>> check_rescaling(NO_RESCALING)
    """
    remedy = "find one with discover_rescaling(model, spec, example_inputs)"
    check_kind(rescaling, RescalingSpec, "a RescalingSpec", remedy)


def rescale_state(
    state: StateLike,
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    log_scales: Factors | None = None,
    signs: Factors | None = None,
) -> State:
    r"""Scale hidden units without changing the function.

    Slot k of unit i is multiplied by :math:`s_i^{e_k}`.

    .. math:: W'_l = S_l\, W_l\, S_{l-1}^{-1}, \qquad b'_l = S_l\, b_l, \qquad S = \mathrm{diag}(\exp x)

    for a chain of linear layers with ReLU between them; differentiable in log-scales and tensors.

    Args:
        state: tensor name to tensor; what no generator names is passed on as it is.
        spec: the spec the rescalings were found for.
        log_scales: per group, x of each positive generator and unit, (generators, n) or (generators, blocks, n);
            groups that are missing stay.
        signs: likewise, ±1 for each sign generator; the numbers between, for soft signs, change the function.

    Returns:
        A new dict. Nothing in ``state`` is changed; tensors that are not scaled are shared with it.

    Raises:
        SpecError: when state, spec, rescalings and factors do not belong together.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_rescaling, discover_symmetry
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> rescaling = discover_rescaling(net, spec, torch.randn(4, 3))
        >>> state = rescale_state(net.state_dict(), spec, rescaling, {"0": torch.randn(1, 8)})
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(torch.func.functional_call(net, state, x), net(x), atol=1e-5)
        True

    Source: Neyshabur, Salakhutdinov, Srebro, "Path-SGD" (2015); signs: Hecht-Nielsen (1990), Sussmann (1992).
    """
    check_state(spec, state)
    check_rescaling(rescaling)
    log_scales, signs = log_scales or {}, signs or {}
    _check_factors(spec, rescaling, log_scales, "positive")
    _check_factors(spec, rescaling, signs, "sign")
    first = {name: names[0] for names in spec.tied for name in names}
    positive = factors_by_place(rescaling, log_scales, "positive")
    flips = factors_by_place(rescaling, signs, "sign")
    return {
        name: _multiplied(
            tensor, positive.get(first.get(name, name), {}), flips.get(first.get(name, name), {})
        )
        for name, tensor in state.items()
    }


_Place: TypeAlias = dict[tuple[int, ...], list[tuple[Layout, int, Tensor]]]


def factors_by_place(rescaling: RescalingSpec, factors: Factors, kind: Kind) -> dict[str, _Place]:
    """Collect by tensor and axes what is multiplied there.

    Each entry is a layout, its exponent, and one factor per unit.
    """
    found: dict[str, _Place] = {}
    for group, values in factors.items():
        for generator, value in zip(rescaling.of(group, kind), values, strict=True):
            for slot, exponent in generator.exponents:
                place = found.setdefault(slot.tensor, {}).setdefault(slot.axes, [])
                place.append((slot.layout, exponent, value))
    return found


def _multiplied(tensor: Tensor, positive: _Place, flips: _Place) -> Tensor:
    for axes, parts in positive.items():
        tensor = tensor * along(axes, tensor.shape, summed(parts, axes, tensor).exp())
    for axes, parts in flips.items():
        for layout, exponent, value in parts:
            if exponent % 2:  # an even power of a sign is one
                # One less than the sign, so that what is left out is multiplied by one.
                less = summed([(layout, 1, value - 1)], axes, tensor)
                tensor = tensor * along(axes, tensor.shape, 1 + less)
    return tensor


def summed(parts: Sequence[tuple[Layout, int, Tensor]], axes: tuple[int, ...], tensor: Tensor) -> Tensor:
    """Sum exponent times value over units at their positions.

    The result is as long as the flat axis, and zero where no unit lies.
    """
    length = math.prod(tensor.shape[axis] for axis in axes)
    dtype = parts[0][2].dtype
    total = torch.zeros(length, dtype=dtype, device=tensor.device)
    for layout, exponent, value in parts:
        positions = _positions(layout)
        values = value.to(tensor.device, dtype).reshape(layout.blocks, layout.size, 1).expand(positions.shape)
        total = total.index_add(0, positions.reshape(-1).to(tensor.device), exponent * values.reshape(-1))
    return total


def along(axes: tuple[int, ...], shape: Sequence[int], flat: Tensor) -> Tensor:
    """Reshape a flat axis's vector so that it broadcasts.

    The vector runs over ``axes`` read as one; the tensor has ``shape``.
    """
    order = sorted(range(len(axes)), key=axes.__getitem__)
    view = flat.reshape([shape[axis] for axis in axes]).permute(order)
    return view.reshape([size if axis in axes else 1 for axis, size in enumerate(shape)])


@lru_cache(maxsize=4096)
def _positions(layout: Layout) -> Tensor:
    return torch.from_numpy(layout.table())


def _check_factors(spec: PermutationSpec, rescaling: RescalingSpec, factors: Factors, kind: Kind) -> None:
    expected = rescaling.shapes(spec, kind)
    for group, value in factors.items():
        if group not in expected:
            raise SpecError(
                f"Expected factors of groups with {kind} generators, {sorted(expected)}, but got {group!r}."
            )
        if tuple(value.shape) != expected[group]:
            raise SpecError(
                f"Expected the factors of group {group!r} in shape {expected[group]}, one per {kind} generator and "
                f"unit, but got {tuple(value.shape)}."
            )
        if kind == "sign" and not bool((value.abs() <= 1).all()):
            raise SpecError(
                f"Expected signs from -1 to 1 for group {group!r} but got {value.flatten()[:8].tolist()}..."
            )
