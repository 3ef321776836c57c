"""A check of its own: networks built and loaded anew, inputs of another batch size, float64."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sinkhorn_rebasin.networks.structures import replaced
from sinkhorn_rebasin.networks.uncompiled import uncompiled
from sinkhorn_rebasin.permutations import PermutationSpec, permute_state, random_permutations

# What torch says where a network makes float32 memory of its own.
_OF_TYPES = ("dtype", "expected scalar type", "and bias type", "and weight type", "got Double")
# What rounding to float32 inside makes of no change.
LEAST_ROUND_OFF, MOST_ROUND_OFF = 1e-10, 1e-5
# An output varies from sample to sample if it does so by more than this share of its largest value.
LEAST_VARIATION = 1e-6
_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def change_on_fresh_inputs(
    discovered: nn.Module,
    build: Callable[[], nn.Module],
    spec: PermutationSpec,
    fresh: Callable[[], Any],
    seed: int,
) -> tuple[float, torch.dtype]:
    """Return the largest relative change of the outputs when all groups are permuted, and the precision.

    The network and its permuted twin are built under one seed and share nothing. ``load_state_dict`` brings the
    permuted state into the twin. Another seed than that of discovery gives other weights and statistics in the same
    architecture. Integers in the state dict are indices and counts: they stay those of the discovered network.
    """
    integers = {
        name: tensor.clone()
        for name, tensor in discovered.state_dict().items()
        if isinstance(tensor, Tensor)
        and not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    }
    model, twin = _built(build, seed, integers), _built(build, seed, integers)
    _seed(seed + 100)
    inputs = fresh()
    state = permute_state(model.state_dict(), spec, random_permutations(spec))
    try:
        change = _change(model.double(), twin.double(), state, _wide(inputs))
        rounded = LEAST_ROUND_OFF < change <= MOST_ROUND_OFF and _is_narrow(model, _wide(inputs))
        return change, torch.float32 if rounded else torch.float64
    except _NotFinite:
        pass  # masks of the least float32 overflow in sums of float64
    except RuntimeError as error:
        if not any(word in str(error) for word in _OF_TYPES):
            raise
    model, twin = _built(build, seed, integers), _built(build, seed, integers)
    return _change(model, twin, state, inputs), torch.float32


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (other people's networks draw from NumPy's global state)


class _NotFinite(ValueError):
    """An output holds infinities or NaN."""


class _SinglePrecision(TorchDispatchMode):
    """Notice whether a network rounds to float32 although it is given float64."""

    narrow = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        self.narrow |= any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.float32 for leaf in tree_leaves(outputs)
        )
        return outputs


def _is_narrow(model: nn.Module, inputs: Any) -> bool:
    # Compiled parts run as they are written: the compiler gives up under a dispatch mode.
    with uncompiled(), _SinglePrecision() as seen:
        _outputs(model, inputs)
    return seen.narrow


def _built(build: Callable[[], nn.Module], seed: int, integers: dict[str, Tensor]) -> nn.Module:
    _seed(seed)
    model = build().eval()
    model.load_state_dict(integers, strict=False)
    return model


def _change(model: nn.Module, twin: nn.Module, state: dict[str, Tensor], inputs: Any) -> float:
    before, again = _outputs(model, inputs), _outputs(twin, inputs)
    if any(_relative(one, other) for one, other in zip(before, again, strict=True)):
        raise ValueError("Expected a network that is the same when built again but got other outputs.")
    twin.load_state_dict(state)
    after = _outputs(twin, inputs)
    return max(_relative(one, other) for one, other in zip(before, after, strict=True))


def _outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    copied = replaced(inputs, Tensor.clone)
    _seed(0)
    with torch.no_grad():
        if isinstance(copied, dict):
            outputs = model(**copied)
        else:
            outputs = model(*copied) if isinstance(copied, tuple) else model(copied)
    found = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    if not found:
        raise TypeError(f"Expected tensors in tuples, lists and dicts but got {type(outputs).__name__}.")
    return found


def _relative(before: Tensor, after: Tensor) -> float:
    kind = torch.complex128 if before.is_complex() else torch.float64
    before, after = before.to(kind), after.to(kind)
    if not (before.isfinite().all() and after.isfinite().all()):
        raise _NotFinite("Expected finite outputs on the fresh inputs but got infinities or NaN.")
    scale = before.abs().max()
    if before.dim():
        # A constant in the output, the same for all samples, would hide what a wrong claim changes.
        varying = (before - before[:1]).abs().max()
        scale = varying if varying > LEAST_VARIATION * scale else scale
    return float((before - after).abs().max() / scale.clamp_min(torch.finfo(torch.float64).tiny))


def _wide(inputs: Any) -> Any:
    return replaced(inputs, lambda tensor: tensor.to(_WIDER.get(tensor.dtype, tensor.dtype)))
