"""Further inputs like the example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from sinkhorn_rebasin._typing import ExampleInputs


def random_inputs(
    example_inputs: ExampleInputs, generator: torch.Generator, dtype: torch.dtype | None = torch.float64
) -> ExampleInputs:
    """Inputs of the same structure, shapes and types: normal floats, integers drawn from the example's."""

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.numel() == 0:
            return leaf
        if leaf.is_floating_point():
            spread = leaf.double().std(correction=0).clamp_min(1e-3)
            noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.device)
            return (noise * spread + leaf.double().mean()).to(dtype or leaf.dtype)
        chosen = torch.randint(leaf.numel(), leaf.shape, generator=generator)
        return leaf.reshape(-1)[chosen.to(leaf.device)]

    return tree_map(draw, example_inputs)
