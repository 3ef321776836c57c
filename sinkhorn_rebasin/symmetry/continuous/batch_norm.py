"""Batch norms folded into the layers before them, where those of a linear stream must be: a form for inference."""

from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin._typing import State
from sinkhorn_rebasin.errors import ArchitectureError, listed
from sinkhorn_rebasin.permutations import PermutationSpec, Slot
from sinkhorn_rebasin.permutations.action import apply_matrices
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.permutations.shift_moves import bias_beside
from sinkhorn_rebasin.permutations.units_of_slots import with_ties
from sinkhorn_rebasin.symmetry.continuous.function_proof import FunctionProof, Move
from sinkhorn_rebasin.symmetry.continuous.neutral import batch_norms_among


def batch_norms_to_fold(network: nn.Module, continuous: ContinuousSpec) -> dict[str, float]:
    """The names of batch norms whose gain must be one, each with its epsilon."""
    return batch_norms_among(network, {gain for symmetry in continuous.symmetries for gain in symmetry.gains})


def check_eval_mode(network: nn.Module, continuous: ContinuousSpec) -> None:
    """Refuse a network whose batch norms are to be folded while their statistics move.

    Raises:
        ArchitectureError: the network is in training mode; the batch norms are named.
    """
    norms = dict(network.named_modules())
    moving = [name for name in batch_norms_to_fold(network, continuous) if norms[name].training]
    if moving:
        raise ArchitectureError(
            f"Expected {type(network).__name__} in eval mode, since its batch norms {listed(moving)} are folded with "
            f"the running statistics that they have, but got one in training mode, in which these move: call "
            f"model.eval()."
        )


def neutral_statistics(state: State, norms: dict[str, float]) -> State:
    r"""Move the running statistics of batch norms into their gain and shift, exactly in eval mode.

    .. math:: \gamma \to \frac{\gamma}{\sqrt{v + \epsilon}}, \qquad \beta \to \beta - m \frac{\gamma}{\sqrt{v +
        \epsilon}}, \qquad m \to 0, \qquad v \to 1 - \epsilon

    >>> norm = nn.BatchNorm1d(1).double()
    >>> state = {f"0.{name}": tensor for name, tensor in norm.state_dict().items()}
    >>> state["0.running_mean"] = torch.tensor([3.0]).double()
    >>> round(float(neutral_statistics(state, {"0": 0.0})["0.bias"]), 6)
    -3.0
    """
    moved = dict(state)
    for name, epsilon in norms.items():
        weight, bias, mean, variance = (
            state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / (variance + epsilon).sqrt()
        moved[f"{name}.weight"], moved[f"{name}.bias"] = scale, bias - mean * scale
        moved[f"{name}.running_mean"] = torch.zeros_like(mean)
        moved[f"{name}.running_var"] = torch.full_like(variance, 1 - epsilon)
    return moved


def fold_batch_norms(proof: FunctionProof, continuous: ContinuousSpec) -> State:
    """Give batch norms neutral statistics, and their gains to the layers whose output they scale.

    Where those of a stream must be folded, so are all others that the network has: between two networks their
    statistics would be mixed apart from the weights that they belong to. Which layer a gain goes to is found by
    trial: the nearest that stands before the norm and passes the proof. A gain that goes nowhere stays.
    """
    norms = batch_norms_to_fold(proof.network, continuous)
    if not norms:
        return proof.state
    norms |= batch_norms_among(proof.network, proof.spec.shapes)
    state = neutral_statistics(proof.state, norms)
    proof.held |= {f"{name}.{part}" for name in norms for part in ("running_mean", "running_var")}
    for name in norms:
        gain = f"{name}.weight"
        for writer in _writers(proof.spec, gain, list(state)):
            if bool((state[gain] == 1).all()):
                break
            state = proof.moved([_scaling(proof.spec, gain, writer)], state)
    return state


def _writers(spec: PermutationSpec, gain: str, order: list[str]) -> list[Slot]:
    """List the layers whose outputs a gain may scale.

    The nearest before it comes first.
    """
    groups = {slot.group for slot in spec.slots_on(gain)}
    writers = [slot for slot in spec.slots if slot.group in groups and slot.axes == (0,)]
    writers = [slot for slot in writers if len(spec.shapes[slot.tensor]) > 1]
    # Behind the norm come only those of networks that list their layers in another order.
    place = order.index(gain)
    return sorted(writers, key=lambda slot: (place - order.index(slot.tensor)) % len(order))


def _scaling(spec: PermutationSpec, gain: str, writer: Slot) -> Move:
    """Multiply a layer's outputs by a gain, which becomes one."""

    def move(state: State) -> State | None:
        scale = torch.diag(state[gain])
        if writer.layout.blocks != 1 or writer.layout.size != len(scale):
            return None
        moved = {**state, gain: torch.ones_like(state[gain])}
        moved[writer.tensor] = apply_matrices(state[writer.tensor], writer, scale)
        bias = bias_beside(state, writer.tensor)
        if bias is not None:
            moved[bias] = state[bias] * state[gain]
        return with_ties(moved, spec)

    return move
