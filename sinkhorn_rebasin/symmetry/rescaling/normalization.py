"""Choose one representative among all rescalings of a network."""

from __future__ import annotations

import torch

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import named_tensors, tensors_of
from sinkhorn_rebasin.networks.copying import Module, standalone_copy
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, normalize_state_scales
from sinkhorn_rebasin.symmetry.rescaling.discovery import discover_rescaling


def normalize_scales(
    model: Module,
    spec: PermutationSpec,
    rescaling: RescalingSpec | None = None,
    *,
    example_inputs: ExampleInputs = None,
) -> Module:
    """Scale every unit's incoming weights to norm one.

    Networks that differ by rescalings alone become equal. What is normalised, and by which formula, is told by
    :func:`~sinkhorn_rebasin.permutations.normalize_state_scales`.

    Args:
        model: the network; it is not changed.
        spec: its permutation symmetries.
        rescaling: its rescalings; found on ``example_inputs`` when it is None.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ArchitectureError: when neither rescalings nor example inputs are given.
        SpecError: when spec and rescalings are of another network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> from torch import nn
        >>> net, x = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 3)
        >>> normal = normalize_scales(net, discover_symmetry(net, x), example_inputs=x)
        >>> torch.allclose(normal[0].weight.norm(dim=1), torch.ones(8))
        True
        >>> torch.allclose(normal(x), net(x), atol=1e-5)
        True

    Source: Pittorino et al., "Deep networks on toroids" (2022).
    """
    if rescaling is None:
        if example_inputs is None:
            raise ArchitectureError(
                "Expected rescalings, or example inputs to find them with, but got neither."
            )
        rescaling = discover_rescaling(model, spec, example_inputs, signs=False)
    twin = standalone_copy(model)
    with torch.inference_mode(False), torch.no_grad():
        moved = normalize_state_scales(tensors_of(twin), spec, rescaling)
        tensors = named_tensors(twin)
        for name in spec.shapes:
            tensors[name].copy_(moved[name])
    return twin
