"""Gram matrices of layers' inputs, carried by an alignment instead of being measured again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin.curvature.gram import GramMatrices, LayerGram
from sinkhorn_rebasin.errors import SpecError
from sinkhorn_rebasin.matching.coordinates import Coordinates, moved_inputs
from sinkhorn_rebasin.permutations import permute_state, rescale_state


def carried_grams(coordinates: Coordinates, grams: GramMatrices) -> GramMatrices:
    r"""Move Gram matrices as weights are moved.

    .. math:: G' = N^{-\top} G\, N^{-1}

    with N what moves the input axis of the weight: :math:`P G P^\top` for permutations P. Of a layer with several
    convolution groups, permutations, scales and signs are read off its weight and bias.

    Returns:
        The Gram matrices. Layers whose inputs do not move by themselves are left out, with the reason.
    """
    moving = coordinates.contragredient()
    layers: dict[str, LayerGram] = {}
    left_out = dict(grams.left_out)
    for name, layer in grams.layers.items():
        try:
            layers[name] = replace(layer, matrix=_moved(coordinates, moving, layer))
        except SpecError as error:
            left_out[name] = str(error)
    return replace(grams, layers=layers, left_out=left_out)


def _moved(coordinates: Coordinates, moving: Coordinates, layer: LayerGram) -> Tensor:
    if layer.weight not in coordinates.spec.shapes:
        raise SpecError(f"Expected layers of the spec's network but it has no {layer.weight!r}.")
    if tuple(coordinates.spec.shapes[layer.weight]) != tuple(layer.weight_shape):
        raise SpecError(
            f"Expected {layer.weight!r} of shape {tuple(coordinates.spec.shapes[layer.weight])}, as in the spec, but "
            f"the Gram matrix is of a layer of shape {tuple(layer.weight_shape)}."
        )
    if len(layer.matrix) > 1:
        return _moved_groups(coordinates, layer)
    width = layer.weight_shape[1]
    return moved_inputs(moving, layer.matrix[0], layer.weight, width, layer.bias is not None)[None]


def _moved_groups(coordinates: Coordinates, layer: LayerGram) -> Tensor:
    """Move the matrices of convolution groups.

    Whole groups move, and channels inside of them.
    """
    if any(slot.group in coordinates.maps for slot in coordinates.spec.slots_on(layer.weight)):
        raise SpecError(f"Expected groups of {layer.weight!r} that are permuted but a map turns its units.")
    groups, outputs = len(layer.matrix), layer.weight_shape[0]
    origin, channels = _origins(coordinates, layer)
    factors = _input_factors(coordinates, layer).reshape(groups, outputs // groups, -1)
    if not bool(torch.isclose(factors, factors[:, :1]).all()):
        raise SpecError(
            f"Expected one scale for each input of {layer.weight!r} but its rows are scaled apart."
        )
    size = factors.shape[-1]
    # An input that is s times what it was has weights that are 1/s times what they were.
    scales = torch.cat([1 / factors[:, 0], torch.ones(groups, layer.matrix.shape[-1] - size).double()], 1)
    scaled = scales[:, :, None] * layer.matrix * scales[:, None, :]
    taps = size // layer.weight_shape[1]
    order = (channels[:, :, None] * taps + torch.arange(taps)).reshape(groups, size)
    order = torch.cat([order, torch.arange(size, layer.matrix.shape[-1]).expand(groups, -1)], 1)
    return torch.stack([scaled[origin[g]][order[g]][:, order[g]] for g in range(groups)])


def _origins(coordinates: Coordinates, layer: LayerGram) -> tuple[Tensor, Tensor]:
    """Read off where groups and channels come from.

    Groups are (groups,), channels (groups, channels), read off the moved weight.
    """
    groups, (outputs, channels) = len(layer.matrix), layer.weight_shape[:2]
    numbers = torch.arange(outputs * channels).reshape(outputs, channels)
    slots = tuple(slot for slot in coordinates.spec.slots if slot.tensor == layer.weight)
    if any(max(slot.axes) > 1 for slot in slots):
        raise SpecError(f"Expected a kernel that stays in order but {layer.weight!r} moves along it.")
    spec = replace(
        coordinates.spec, slots=slots, shapes={layer.weight: (outputs, channels)}, frozen=(), tied=()
    )
    moved = permute_state({layer.weight: numbers}, spec, coordinates.permutations)[layer.weight]
    rows, columns = (moved // channels).reshape(groups, -1, channels), moved % channels
    columns = columns.reshape(groups, -1, channels)
    origin = rows // (outputs // groups)
    if not bool((origin == origin[:, :1, :1]).all() and (columns == columns[:, :1]).all()):
        raise SpecError(f"Expected groups of {layer.weight!r} that move as a whole but they are mixed.")
    return origin[:, 0, 0], columns[:, 0]


def _input_factors(coordinates: Coordinates, layer: LayerGram) -> Tensor:
    """Return the factors of inputs, (outputs, inputs).

    Weights are multiplied by them before they move.
    """
    names = [layer.weight] + ([] if layer.bias is None else [layer.bias])
    ones = {name: torch.ones(coordinates.spec.shapes[name]).double() for name in names}
    if coordinates.rescaling is None or not (coordinates.log_scales or coordinates.signs):
        return ones[layer.weight].flatten(1)
    given = {
        name: ones.get(name, torch.ones(shape).double())
        for name, shape in coordinates.spec.shapes.items()
        if name not in coordinates.spec.buffers
    }
    scaled = rescale_state(
        given, coordinates.spec, coordinates.rescaling, coordinates.log_scales, coordinates.signs
    )
    factors = scaled[layer.weight].flatten(1)
    if layer.bias is not None:
        # A bias has the scale of the output alone.
        return factors / scaled[layer.bias].reshape(-1, 1)
    if bool((factors == 1).all()):
        return factors
    raise SpecError(
        f"Expected a bias beside {layer.weight!r}, to tell scales of its inputs from those of its outputs, but got "
        f"none."
    )
