"""Which way is taken where none is asked for."""

from __future__ import annotations

from sinkhorn_rebasin.carrying.by_weights import ByWeights
from sinkhorn_rebasin.carrying.distilled import Distilled
from sinkhorn_rebasin.carrying.drawn_text import position_axis
from sinkhorn_rebasin.carrying.layer_activations import plain_layers
from sinkhorn_rebasin.carrying.layer_by_layer import LayerByLayer
from sinkhorn_rebasin.carrying.update_inputs import shows_inputs
from sinkhorn_rebasin.carrying.way import CarryProblem, Way

MOST = 0.5
"""Least share of parameters in linear and convolution layers of networks that are carried layer by layer."""


def default_way(problem: CarryProblem) -> Way:
    """Return the way that carries most with what there is.

    An alignment that is given is used. Language models are carried by answers, since maps carry next to nothing
    between two of different seeds. Networks whose parameters are mostly those of linear and convolution layers
    are carried layer by layer, where there are data, or inputs can be drawn without any; all others by weights.
    """
    if problem.alignment is not None:
        return ByWeights()
    if not problem.heads and position_axis(problem.tuned, problem.example_inputs) is not None:
        return Distilled()
    layers = plain_layers(problem.base)
    held = {f"{name}.{part}".lstrip(".") for name in layers for part in ("weight", "bias")}
    sizes = {name: tensor.numel() for name, tensor in problem.update.difference.items()}
    inside = sum(size for name, size in sizes.items() if name in held)
    if inside < MOST * sum(sizes.values()):
        return ByWeights()
    return LayerByLayer() if problem.batches or shows_inputs(problem) else ByWeights()
