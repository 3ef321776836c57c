"""Corrections of what layers put out, while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.permutations import PermutationSpec, Slot

Correction: TypeAlias = Callable[[Tensor], Tensor]


def output_slots(spec: PermutationSpec, layer: AffineLayer) -> tuple[Slot, ...]:
    """Find the slots on a layer's outputs.

    They are those of its bias, or of its weight where there is none.
    """
    if layer.has_bias:
        return spec.slots_on(layer.bias)
    axes = (0,) if layer.convolution_groups is None else (1,)
    return tuple(slot for slot in spec.slots_on(layer.weight) if slot.axes == axes)


def at_front(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Return the slots as on the first axis.

    They are those of a tensor that has no other axis.

    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> at_front([Slot("a", "w", (1,), Layout(1, 2))])[0].axes
    (0,)
    """
    return tuple(replace(slot, axes=(0,)) for slot in slots)


def corrected(
    output: Tensor, *, stage: AffineLayer, axis: int, mean: Tensor | None, deviation: Tensor
) -> Tensor:
    """Give a layer's output a mean and a deviation.

    A mean of None leaves the output its own.

    Without a bias there is nothing to shift by, and the mean is scaled with the deviation.
    """
    shape = [1] * output.ndim
    shape[axis] = stage.outputs
    others = [dim for dim in range(output.ndim) if dim != axis % output.ndim]
    if output.numel() <= output.shape[axis]:
        return output  # one value of each unit has no deviation; REPAIR leaves such a layer alone too
    # Half precision is too coarse for variances.
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    variance, now = torch.var_mean(wide, others, correction=0, keepdim=True)
    mean, deviation = (
        (now if mean is None else mean.to(wide).reshape(shape)),
        deviation.to(wide).reshape(shape),
    )
    # As in REPAIR itself: below this the variation is round-off, and nothing to divide by.
    varies = variance > (1e-6 * now).square()
    scale = torch.where(varies, deviation / torch.where(varies, variance, 1.0).sqrt(), 1.0)
    moved = wide * scale + (mean - now * scale if stage.has_bias else 0)
    hidden = torch.zeros(stage.outputs, dtype=torch.bool, device=output.device)
    hidden[list(stage.units)] = True
    return torch.where(hidden.reshape(shape), moved.to(output.dtype), output)


@contextmanager
def corrected_outputs(corrections: Mapping[nn.Module, Correction]) -> Iterator[None]:
    """Correct the outputs of layers inside the context."""
    handles = [
        layer.register_forward_hook(lambda _, __, output, correct=correct: correct(output))
        for layer, correct in corrections.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
