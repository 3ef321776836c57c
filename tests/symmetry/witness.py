"""An independent check that two sets of weights are the same function."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


def in_double_precision(inputs: Any) -> Any:
    """The inputs with floats in double precision."""
    return tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs)


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The tensors a network returns."""
    if isinstance(inputs, dict):
        result = model(**inputs)
    else:
        result = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def loaded(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A copy of a network with other weights."""
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    return other


def difference(model: nn.Module, state: dict[str, Tensor], inputs: Any) -> float:
    """Largest change of the output, over its largest value, when a network is loaded with other weights."""
    before, after = outputs_of(model, inputs), outputs_of(loaded(model, state), inputs)
    scale = max(float(one.double().abs().max()) for one in before)
    return max(float((a - b).double().abs().max()) for a, b in zip(before, after, strict=True)) / scale
