"""Which way is taken where none is asked for."""

from __future__ import annotations

from sinkhorn_rebasin.carrying.by_weights import ByWeights
from sinkhorn_rebasin.carrying.layer_activations import plain_layers
from sinkhorn_rebasin.carrying.layer_by_layer import LayerByLayer
from sinkhorn_rebasin.carrying.update_inputs import first_weight
from sinkhorn_rebasin.carrying.way import CarryProblem, Way


def default_way(problem: CarryProblem) -> Way:
    """Return the way that carries most with what there is.

    An alignment that is given is used. Networks of linear and convolution layers alone are carried layer by layer,
    where there are data or the first layer's update shows its inputs; all others by weights.
    """
    if problem.alignment is not None:
        return ByWeights()
    layers = plain_layers(problem.base)
    held = {f"{name}.{part}".lstrip(".") for name in layers for part in ("weight", "bias")}
    if set(problem.update.difference) - held:
        return ByWeights()
    shown = bool(problem.batches) or first_weight(problem) is not None
    return LayerByLayer() if shown else ByWeights()
