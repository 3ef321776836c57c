"""REPAIR with one forward of all data for each layer, which is right for every network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.activations.batch_norm import measured_buffers
from sinkhorn_rebasin.activations.repair_in_one_forward import Correction
from sinkhorn_rebasin.activations.repair_sites import Stages, measured


def corrected_layer_by_layer(
    network: nn.Module, stages: Stages, state: StateLike, inputs: Sequence[Any], correction: Correction
) -> State:
    """Correct a state layer by layer.

    Each correction is found with all layers before it corrected.

    Args:
        network: a copy, on which hooks come and go.
        stages: the layers to correct and the batch norms to measure, in their order.
        state: parameters and buffers; unchanged.
        inputs: the batches.
        correction: asked for each layer with the moments of its outputs.
    """
    repaired = dict(state)
    for layer, stage in stages.items():
        moments = measured(network, {layer: stage}, repaired, inputs)
        if isinstance(stage, AffineLayer):
            found = correction(stage, moments[stage.name])
            if found is not None:
                repaired.update(stage.transformed(repaired, *found))
        elif moments[stage].count > 1:
            repaired.update(measured_buffers(repaired, moments))
    return repaired
