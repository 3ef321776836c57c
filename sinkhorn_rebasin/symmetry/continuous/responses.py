"""How a network's output answers to mixing the units of a group, slot by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.permutations import Slot
from sinkhorn_rebasin.permutations.action import units_first
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import gradients_of

MOST_UNITS = 12
"""Units of a block that are asked about: permutations carry the answer to all others."""

Responses = Mapping[str, NDArray[np.float64]]


def responses(
    network: nn.Module,
    state: State,
    slots: Mapping[str, Sequence[Slot]],
    example_inputs: ExampleInputs,
    generator: torch.Generator,
) -> dict[str, NDArray[np.float64]]:
    r"""Per group the products of gradients and weights of every two units, for some of its units.

    .. math:: G_k = \frac{\partial \langle c, f_\theta(x)\rangle}{\partial W_k} W_k^\top

    for random c and x. Where moving each :math:`W_k` by :math:`X_k W_k` leaves f unchanged,
    :math:`\sum_k \langle G_k, X_k \rangle = 0`. One backward pass serves all groups.

    Shapes:
        each array is (slots, blocks, units, units).
    """
    names = {slot.tensor for parts in slots.values() for slot in parts}
    gradients = gradients_of(network, state, names, example_inputs, generator) if names else None
    if gradients is None:
        return {}
    found = {}
    for group, parts in slots.items():
        if parts:
            size = parts[0].layout.size
            picked = torch.randperm(size, generator=generator, device=generator.device)[:MOST_UNITS].cpu()
            found[group] = np.stack(
                [_between_units(gradients[slot.tensor], state[slot.tensor], slot, picked) for slot in parts]
            )
    return found


def _between_units(
    gradient: Tensor | None, tensor: Tensor, slot: Slot, picked: Tensor
) -> NDArray[np.float64]:
    if gradient is None:
        return np.zeros((slot.layout.blocks, len(picked), len(picked)))
    weights = units_first(real_view(tensor.detach()), slot, picked)
    products = units_first(real_view(gradient.to_dense()), slot, picked) @ weights.mT
    return np.asarray(products.double().cpu().numpy())
