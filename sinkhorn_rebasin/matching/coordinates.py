"""What lives in a network's coordinates beside its weights, moved by an alignment: masks, moments, directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.curvature.kronecker import KroneckerFisher, LayerFactors
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.networks.architecture import double_precision
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, permute_state, rescale_state
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, transform_state
from sinkhorn_rebasin.permutations.slots import Slot

TensorKind: TypeAlias = Literal["update", "mask", "gradient", "squared_gradient", "units"]
DirectionKind: TypeAlias = Literal["direction", "probe"]


@dataclass(frozen=True)
class Coordinates:
    """Hold everything that an alignment moves a network by.

    Tensors are moved in double precision and come back in the type that they had.
    """

    spec: PermutationSpec
    permutations: Mapping[str, Tensor]
    rescaling: RescalingSpec | None
    signs: Mapping[str, Tensor]
    log_scales: Mapping[str, Tensor]
    continuous: ContinuousSpec | None
    maps: Mapping[str, Tensor]

    @classmethod
    def of(cls, alignment: Any) -> Coordinates:
        """Take an alignment's permutations, signs, scales and maps."""
        real = {name: _wide(value) for name, value in alignment.maps.items()}
        return cls(
            alignment.spec,
            {n: order for n, order in alignment.permutations.items() if n not in real},
            alignment.rescaling,
            {name: _wide(value) for name, value in alignment.signs.items()},
            {name: _wide(value) for name, value in alignment.log_scales.items()},
            alignment.continuous,
            real,
        )

    def carry(self, mapping: StateLike, kind: TensorKind) -> State:
        """Move tensors of a kind: see :meth:`Alignment.carry`."""
        if kind not in get_args(TensorKind):
            raise SpecError(f"Expected kind to be one of {get_args(TensorKind)} but got {kind!r}.")
        if kind == "units":
            return {name: self._units(name, value) for name, value in mapping.items()}
        given = self._filled(mapping)
        if kind == "update":
            moved = self.moved({name: _wide(tensor) for name, tensor in given.items()})
        elif kind == "gradient":
            moved = self.contragredient().moved({name: _wide(tensor) for name, tensor in given.items()})
        else:
            self._refuse_maps(kind)
            scales = {} if kind == "mask" else {n: -2 * value for n, value in self.log_scales.items()}
            if scales and self.rescaling is not None:
                given = rescale_state(
                    {n: _wide(tensor) for n, tensor in given.items()}, self.spec, self.rescaling, scales
                )
            moved = permute_state(given, self.spec, self.permutations)
        return {name: moved[name].to(mapping[name].dtype) for name in mapping}

    def moved(self, state: StateLike) -> State:
        """Act on weights, or on a difference of weights."""
        if self.rescaling is not None:
            state = rescale_state(state, self.spec, self.rescaling, self.log_scales, self.signs)
        if self.continuous is None:
            return permute_state(state, self.spec, self.permutations)
        return transform_state(state, self.spec, self.continuous, self.maps, self.permutations)

    def contragredient(self) -> Coordinates:
        r"""Return what gradients move by, :math:`G^{-\top}` where weights move by G."""
        return Coordinates(
            self.spec,
            self.permutations,
            self.rescaling,
            self.signs,
            {name: -value for name, value in self.log_scales.items()},
            self.continuous,
            {name: torch.linalg.inv(matrix).mT for name, matrix in self.maps.items()},
        )

    def at_axis(self, tensor: str, axis: int, columns: int) -> Coordinates:
        """Return what acts on vectors along one axis of a tensor.

        Args:
            tensor, axis: of the network.
            columns: how many vectors there are, along a second axis.

        Raises:
            SpecError: the axis moves together with another one.
        """
        joined = [slot for slot in self.spec.slots_on(tensor) if axis in slot.axes and len(slot.axes) > 1]
        if joined:
            raise SpecError(
                f"Expected axis {axis} of {tensor!r} to move by itself but its units lie on axes {joined[0].axes}."
            )

        def kept(slot: Slot) -> bool:
            return slot.tensor == tensor and slot.axes == (axis,)

        spec = PermutationSpec(
            self.spec.groups,
            tuple(replace(slot, axes=(0,)) for slot in self.spec.slots if kept(slot)),
            {tensor: (self.spec.shapes[tensor][axis], columns)},
        )
        rescaling, continuous = self.rescaling, self.continuous
        if rescaling is not None:
            generators = tuple(
                replace(
                    each, exponents=tuple((replace(s, axes=(0,)), e) for s, e in each.exponents if kept(s))
                )
                for each in rescaling.generators
            )
            rescaling = RescalingSpec(rescaling.groups, generators)
        if continuous is not None:
            symmetries = tuple(
                replace(
                    each, exponents=tuple((replace(s, axes=(0,)), e) for s, e in each.exponents if kept(s))
                )
                for each in continuous.symmetries
            )
            continuous = ContinuousSpec(symmetries)
        return replace(self, spec=spec, rescaling=rescaling, continuous=continuous)

    def along(self, values: Tensor, tensor: str, axis: int, dimension: int) -> Tensor:
        """Act on one dimension of values as on an axis of a tensor.

        Raises:
            SpecError: the dimension has another length than the axis.
        """
        length = self.spec.shapes[tensor][axis]
        if values.shape[dimension] != length:
            raise SpecError(
                f"Expected {length} numbers along dimension {dimension}, as axis {axis} of {tensor!r} has, but got "
                f"a tensor of shape {tuple(values.shape)}."
            )
        front = _wide(values).movedim(dimension, 0)
        rows = front.reshape(length, -1)
        moved = self.at_axis(tensor, axis, rows.shape[1]).moved({tensor: rows})[tensor]
        return moved.reshape(front.shape).movedim(0, dimension).to(values.dtype)

    def activation(
        self, values: Tensor, at: str, kind: DirectionKind, dimension: int, axis: int | None
    ) -> Tensor:
        """Move directions at a module's output: see :meth:`Alignment.carry_activation`."""
        if kind not in get_args(DirectionKind):
            raise SpecError(f"Expected kind to be one of {get_args(DirectionKind)} but got {kind!r}.")
        prefix = f"{at}." if at else ""
        names = [n for n in (f"{prefix}bias", f"{prefix}weight") if n in self.spec.shapes]
        if not names:
            raise SpecError(f"Expected the path of a module with a weight or bias but got {at!r}.")
        tensor = names[0]
        if len(self.spec.shapes[tensor]) == 1:
            axis = 0
        elif axis is None:
            raise SpecError(
                f"Expected axis=, on which {tensor!r} has the outputs of {at!r}, as it has no bias to tell: 0 of "
                f"linear and convolution layers, 1 of embeddings."
            )
        moving = self if kind == "direction" else self.contragredient()
        return moving.along(values, tensor, axis, dimension)

    def _units(self, group: str, value: Tensor) -> Tensor:
        if group not in self.spec:
            raise SpecError(
                f"Expected statistics by the names of groups {self.spec.names} but got {group!r}."
            )
        if group in self.maps:
            raise SpecError(
                f"Expected units that are permuted but group {group!r} is turned by a map, which mixes its units."
            )
        shape, order = self.spec[group].shape, self.permutations[group]
        if tuple(value.shape[-len(shape) :]) != shape:
            raise SpecError(
                f"Expected statistics of group {group!r} of shape {shape} but got {tuple(value.shape)}."
            )
        return value[..., order] if len(shape) == 1 else value.gather(-1, order.expand(value.shape))

    def _filled(self, mapping: StateLike) -> State:
        """Add zeros where tensors of the spec are missing."""
        unknown = [name for name in mapping if name not in self.spec.shapes]
        if unknown:
            raise SpecError(f"Expected tensors of the spec's network but got {unknown[0]!r}.")
        names = [name for name in self.spec.shapes if name not in self.spec.buffers]
        zeros = {name: torch.zeros(self.spec.shapes[name]) for name in names if name not in mapping}
        return {**dict(mapping), **zeros}

    def _refuse_maps(self, kind: str) -> None:
        if self.maps:
            raise SpecError(
                f"Expected an alignment of permutations for a {kind}, which is one number for each weight, but "
                f"groups {sorted(self.maps)} are turned by maps, which mix weights."
            )


def carried_factors(coordinates: Coordinates, fisher: KroneckerFisher) -> KroneckerFisher:
    r"""Move Kronecker factors of a Fisher information.

    .. math:: A' = N^{-\top} A\, N^{-1}, \qquad G' = P^{-\top} G\, P^{-1}

    with N and P what moves the inputs' and the outputs' axis of the weight. The diagonal of other parameters moves as
    squares of gradients do.

    Raises:
        SpecError: a layer has several convolution groups; it is named.
    """
    moving = coordinates.contragredient()
    layers = {name: _moved_layer(moving, factors) for name, factors in fisher.layers.items()}
    diagonal = coordinates.carry(fisher.diagonal, "squared_gradient") if fisher.diagonal else {}
    return replace(fisher, layers=layers, diagonal=diagonal)


def _moved_layer(moving: Coordinates, factors: LayerFactors) -> LayerFactors:
    if len(factors.inputs) != 1:
        raise SpecError(
            f"Expected a layer of one convolution group but {factors.weight!r} has {len(factors.inputs)}."
        )
    weight = factors.weight
    outputs = moving.along(moving.along(factors.outputs[0], weight, 0, 0), weight, 0, 1)
    inputs = moved_inputs(
        moving, factors.inputs[0], weight, factors.weight_shape[1], factors.bias is not None
    )
    return replace(factors, inputs=inputs[None], outputs=outputs[None])


def moved_inputs(moving: Coordinates, matrix: Tensor, weight: str, width: int, biased: bool) -> Tensor:
    """Move second moments along both axes.

    They are those of a layer's inputs.

    Args:
        moving: what acts on inputs, which is the contragredient of what acts on weights.
        matrix: (inputs, inputs), a one for the bias last.
        weight: name of the layer's weight.
        width: of its input axis.
        biased: whether there is a one for the bias.

    Raises:
        SpecError: the input axis does not move by itself.
    """
    size = len(matrix) - int(biased)
    for dimension in (0, 1):
        front = matrix.movedim(dimension, 0)
        channels = front[:size].reshape(width, size // width, -1)
        moved = moving.along(channels, weight, 1, 0).reshape(size, -1)
        matrix = torch.cat([moved, front[size:]]).movedim(0, dimension)
    return matrix


def _wide(tensor: Tensor) -> Tensor:
    return double_precision(tensor.detach())
