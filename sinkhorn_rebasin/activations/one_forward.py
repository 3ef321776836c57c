"""REPAIR in one forward: every layer is put right the moment its outputs appear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.activations.moments import Moments
from sinkhorn_rebasin.activations.stages import check_finite, run
from sinkhorn_rebasin.symmetry.stillness import Readers

Correction: TypeAlias = Callable[[AffineLayer, Moments], tuple[Tensor, Tensor] | None]
"""Layer and moments of its outputs to a scale and a shift of them, or to None where they stay."""


@torch.no_grad()
def corrected_in_one_forward(
    network: nn.Module,
    layers: Mapping[nn.Module, AffineLayer],
    state: StateLike,
    inputs: Any,
    correction: Correction,
) -> State | None:
    """The state with the corrections in it, each found with all layers that run before it corrected.

    Args:
        network: a copy, on which hooks come and go.
        layers: the layers to correct.
        state: parameters and buffers; unchanged.
        inputs: all data, as one batch.
        correction: asked for each layer when its outputs are there.

    Returns:
        None where a layer runs more than once, or its weight is read outside of it as well: its correction depends on
        all its runs, of which the later ones are not known when the first is put right.
    """
    corrections: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    runs: dict[nn.Module, int] = dict.fromkeys(layers, 0)

    def after(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        runs[layer] += 1
        if max(runs.values()) > 1:
            return output
        stage, moments = layers[layer], Moments()
        axis = 1 - state[stage.weight].ndim  # counted from the end, where there are as many axes of positions
        moments.update(output, axis)
        check_finite({stage.name: moments})
        found = correction(stage, moments)
        if found is None:
            return output
        corrections[layer] = found
        return _transformed(output, axis, *found, stage.has_bias)

    # In front of a layer's own hooks, which then see what the corrected weights give.
    handles = [layer.register_forward_hook(after, prepend=True) for layer in layers]
    readers = Readers(state)
    try:
        with readers:
            run(network, state, [inputs])
    finally:
        for handle in handles:
            handle.remove()
    reads = [readers.reads(layer.weight) for layer in layers.values()]
    if max([*runs.values(), *reads], default=0) > 1:
        return None
    corrected = dict(state)
    for layer, found in corrections.items():
        corrected.update(layers[layer].transformed(state, *found))
    return corrected


def _transformed(output: Tensor, axis: int, scale: Tensor, shift: Tensor, has_bias: bool) -> Tensor:
    """What the layer gives with its correction: as with the shift in its bias, none where it has no bias."""
    shape = [1] * output.ndim
    shape[axis] = -1
    # Rounded to half precision once, not twice.
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    moved = wide * scale.to(wide).reshape(shape)
    if has_bias:
        moved = moved + shift.to(wide).reshape(shape)
    return moved.to(output.dtype)
