"""Would a wrong permutation have been noticed? A network that hardly depends on its weights proves nothing."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import standalone_copy
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.permutations import PermutationSpec, permute_tensor

LEAST_STANDARD_DEVIATION = 0.02
MOST_GROUPS = 6


def redraw(model: nn.Module) -> nn.Module:
    """Draw matrices and kernels anew and move scales and biases, in place: a signal neither dies nor explodes.

    Many libraries start networks with weights so small that the output is that of the last bias alone, or with
    branches that are switched off by a scale of zero.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                inputs = max(1, parameter.numel() // max(1, parameter.shape[0]))
                parameter.normal_(0, max(LEAST_STANDARD_DEVIATION, 1 / math.sqrt(inputs)))
            elif parameter.dim() == 1 and parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def effect_of_a_wrong_permutation(model: nn.Module, spec: PermutationSpec, inputs: Any) -> float:
    """Median relative change of the output when a group is permuted in its largest tensor only.

    Some groups of several tensors, evenly chosen; each must be permuted in all of them for nothing to change.
    """
    state = dict(named_tensors(model))
    tied = [g for g in spec.groups if len({slot.tensor for slot in spec.slots_of(g.name)}) > 1]
    chosen = tied[:: max(1, len(tied) // MOST_GROUPS)][:MOST_GROUPS]
    effects = []
    with torch.no_grad():
        before = run_at(_forgetful(model), {}, inputs)
        for group in chosen:
            # Small tensors may hold one neutral value everywhere.
            tensor = max(
                (slot.tensor for slot in spec.slots_of(group.name)), key=lambda name: state[name].numel()
            )
            slots = tuple(slot for slot in spec.slots_on(tensor) if slot.group == group.name)
            shifted = {group.name: torch.arange(group.size).expand(group.shape).roll(1, -1)}
            wrong = {tensor: permute_tensor(state[tensor], slots, shifted)}
            effects.append(largest_change(before, run_at(_forgetful(model), wrong, inputs)))
    return median(effects) if effects else math.inf


def _forgetful(model: nn.Module) -> nn.Module:
    """A network without what it remembers of other weights."""
    return standalone_copy(model, share_parameters=True)
