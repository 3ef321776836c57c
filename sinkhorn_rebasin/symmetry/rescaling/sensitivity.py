"""How a network's output answers to scaling its units, slot by slot: the equations of its rescalings."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.networks.architecture import real_view
from sinkhorn_rebasin.networks.checked_run import checked_run
from sinkhorn_rebasin.networks.double_precision import is_wide, precision_of
from sinkhorn_rebasin.networks.nested_tensors import tensors_in
from sinkhorn_rebasin.networks.random_inputs import candidate_inputs
from sinkhorn_rebasin.permutations import PermutationSpec, Slot
from sinkhorn_rebasin.permutations.slots import MOST_PARTS, parts_of


def scalable_slots(spec: PermutationSpec, group: str, most: int = MOST_PARTS) -> list[Slot]:
    """The parts of a group's slots on parameters, tied ones once.

    Statistics are left out: they are estimated from data, and come back unscaled when they are estimated again.
    """
    slots = [slot for slot in spec.slots_of(group) if slot.tensor in spec.parameters]
    return [part for slot in slots for part in parts_of(slot, most)]


def draw_run(
    network: nn.Module, state: State, example_inputs: ExampleInputs, generator: torch.Generator
) -> tuple[ExampleInputs, list[Tensor]]:
    """Random inputs that the network runs on, and the tensors it returns, in float64 where its weights are.

    Raises:
        ArchitectureError: when it runs on no candidate, or returns nothing that can be compared.
    """
    failure: ArchitectureError | None = None
    for inputs in candidate_inputs(example_inputs, generator, wide=is_wide(network)):
        try:
            outputs = run_precisely(network, state, inputs)
        except ArchitectureError as error:
            failure = error
            continue
        floating = [tensor for tensor in outputs if tensor.is_floating_point() or tensor.is_complex()]
        if floating and not any(bool(t.isnan().any()) or not bool(t.isfinite().any()) for t in floating):
            return inputs, outputs
    raise failure or ArchitectureError(
        f"Expected {type(network).__name__} to return finite numbers, to find its rescalings with, but it returns "
        f"NaN, nothing finite or no floating point tensor."
    )


def run_precisely(network: nn.Module, state: State, inputs: ExampleInputs) -> list[Tensor]:
    """Return the tensors that a network computes at these weights, in float64 all the way where they are."""
    with precision_of(network):
        return tensors_in(checked_run(network, state, inputs))


def sensitivities(
    network: nn.Module,
    state: State,
    slots: Mapping[str, Sequence[Slot]],
    example_inputs: ExampleInputs,
    generator: torch.Generator,
    factors: State | None = None,
) -> dict[str, NDArray[np.float64]]:
    r"""Per group the matrix of the products of gradients and weights, summed over the positions of a unit.

    .. math:: M_{ik} = \Big\langle \frac{\partial \langle c, f_\theta(x)\rangle}{\partial \theta_k[i]},
        \theta_k[i] \Big\rangle

    for random c and x. A rescaling with exponents e leaves f unchanged, so that :math:`M e = 0`: the derivative
    of its claim at s = 1. One backward pass serves all groups. Where a network computes with other factors than its
    weights, as with 1 + w, these stand in the second place.

    Shapes:
        each matrix is (units, slots).
    """
    names = {slot.tensor for group in slots.values() for slot in group}
    gradients = gradients_of(network, state, names, example_inputs, generator)
    if gradients is None:
        return {group: np.zeros((0, len(parts))) for group, parts in slots.items()}
    factors = state if factors is None else factors
    return {
        group: np.stack([_per_unit(gradients[s.tensor], factors[s.tensor], s) for s in parts], axis=1)
        for group, parts in slots.items()
        if parts
    }


def gradients_of(
    network: nn.Module,
    state: State,
    names: Collection[str],
    example_inputs: ExampleInputs,
    generator: torch.Generator,
) -> dict[str, Tensor | None] | None:
    r"""Gradient of :math:`\langle c, f_\theta(x)\rangle` by each named tensor, for random c and x.

    Returns:
        None where the output depends on nothing; for a tensor, None where it does not depend on that one.

    Raises:
        ArchitectureError: when the network has no derivatives.
    """
    try:
        return _gradients(network, state, names, example_inputs, generator)
    except (RuntimeError, NotImplementedError) as error:
        raise ArchitectureError(
            f"Expected a network that can be differentiated, to find its rescalings and maps with, but "
            f"{type(network).__name__} raised {type(error).__name__}: {error}"
        ) from error


def _gradients(
    network: nn.Module,
    state: State,
    names: Collection[str],
    example_inputs: ExampleInputs,
    generator: torch.Generator,
) -> dict[str, Tensor | None] | None:
    leaves = {name: state[name].detach().clone().requires_grad_() for name in sorted(names)}
    aliases = {id(state[name]): leaf for name, leaf in leaves.items()}
    moved = {name: aliases.get(id(tensor), tensor) for name, tensor in state.items()}
    with torch.enable_grad():
        _, outputs = draw_run(network, moved, example_inputs, generator)
        objective = _weighted_sum(outputs, generator)
        if objective is None:
            return None
        with precision_of(network):
            found = torch.autograd.grad(objective, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def _weighted_sum(outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor | None:
    total = None
    for output in outputs:
        if not output.requires_grad or output.numel() == 0:
            continue
        values = real_view(output)
        values = values[values.detach().isfinite()]
        weights = torch.randn(values.shape, generator=generator, dtype=torch.float64, device=generator.device)
        size = values.detach().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        term = (values / size * weights.to(values)).sum()
        total = term if total is None else total + term
    return total


def _per_unit(gradient: Tensor | None, tensor: Tensor, slot: Slot) -> NDArray[np.float64]:
    table = slot.layout.table().reshape(-1, slot.layout.width)
    if gradient is None:
        return np.zeros(len(table))
    weights = tensor.detach()
    product = real_view(gradient.to_dense()) * real_view(weights)
    front = product.movedim(slot.axes, tuple(range(len(slot.axes))))
    length = math.prod(weights.shape[axis] for axis in slot.axes)
    totals = front.reshape(length, -1).double().sum(1).cpu().numpy()
    return np.asarray(totals[table].sum(1))
