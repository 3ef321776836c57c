"""Two networks as the states that methods compare, and the network that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import NetworkLike, State
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.given_networks import check_weights, state_of
from sinkhorn_rebasin.networks.architecture import check_same, real_view, single_precision
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.permutations.completeness import check_spec, check_state, completed
from sinkhorn_rebasin.permutations.heads import without_differing_heads
from sinkhorn_rebasin.permutations.ignoring import patterns_in


class PairOfStates(NamedTuple):
    """Hold two networks' tensors, and the symmetries with what is ignored.

    Of the ignored tensors both hold those of one network, the one that runs: no method compares them.
    """

    reference: State
    target: State
    spec: PermutationSpec


def as_network(reference: NetworkLike, target: NetworkLike) -> nn.Module:
    """Return the architecture of two networks in eval mode, to run at their states.

    It is a copy of whichever is a module, the reference first.

    Raises:
        ArchitectureError: when neither is.
    """
    for network in (reference, target):
        if isinstance(network, nn.Module):
            return evaluation_copy(network)
    raise ArchitectureError(
        "Expected the reference or the target to be a module, which can be run on the data, but got two states."
    )


def as_states(
    reference: NetworkLike,
    target: NetworkLike,
    spec: PermutationSpec,
    ignore: Sequence[str] = (),
    stacklevel: int = 3,
) -> PairOfStates:
    """Read the states of two networks of the spec's architecture.

    Args:
        reference, target: modules, states, or paths of files.
        spec: the symmetries.
        ignore: layers that each network keeps for itself: see :meth:`PermutationSpec.ignoring`.
        stacklevel: of the warning; 3 is the caller of who calls this.

    Raises:
        ArchitectureError: when they differ in a tensor, or one is quantized or holds NaN; it is named.
        CheckpointError: when a file does not load.
        SpecError: when the spec is of another architecture.

    Warns:
        RebasinWarning: The shapes of last layers differ; they are ignored, and named.
    """
    check_spec(spec)
    first = state_of(reference, "reference", spec.shapes)
    second = state_of(target, "target", spec.shapes)
    spec = spec.ignoring(*patterns_in(ignore)) if ignore else spec
    spec = without_differing_heads(spec, (first, second), stacklevel=stacklevel)
    check_state(spec, first)
    for state in (first, second):
        spec.check_constants(state)
    first, second = completed(spec, first), completed(spec, second)
    check_same(first, second, apart=spec.ignored)
    for state, role in ((first, "reference"), (second, "target")):
        check_weights(state, role, spec.compared)
    if not spec.ignored:
        return PairOfStates(first, second, spec)
    check_state(spec, second)
    runs = second if isinstance(target, nn.Module) and not isinstance(reference, nn.Module) else first
    kept = {name: runs[name] for name in spec.ignored if name in runs}
    return PairOfStates({**first, **kept}, {**second, **kept}, spec)


def comparable_states(reference: State, target: State, spec: PermutationSpec) -> tuple[State, State]:
    """Give infinite weights finite stand-ins, larger than all others, so that they are matched with their like.

    Weights of two types have a type for both.

    Example:
        >>> spec = PermutationSpec((), (), {"w": (2,)})
        >>> state = {"w": torch.tensor([3.0, -torch.inf])}
        >>> comparable_states(state, state, spec)[0]["w"].tolist()
        [3.0, -30.0]
    """
    pair = dict(reference), dict(target)
    for name in spec.compared:
        tensors = [single_precision(state[name]) for state in pair]
        if tensors[0].dtype != tensors[1].dtype:
            dtype = torch.promote_types(tensors[0].dtype, tensors[1].dtype)
            pair[0][name], pair[1][name] = tensors = [tensor.to(dtype) for tensor in tensors]
        if all(bool(tensor.sum().isfinite()) for tensor in tensors):
            if tensors[0].dtype != reference[name].dtype and reference[name].dtype.itemsize == 1:
                pair[0][name], pair[1][name] = tensors  # eight-bit numbers cannot be sorted
            continue
        parts = [real_view(tensor) for tensor in tensors]
        most = max(float(part[part.isfinite()].abs().max()) if part.isfinite().any() else 0 for part in parts)
        for state, tensor in zip(pair, tensors, strict=True):
            large = 10 * max(most, 1.0)
            state[name] = _bounded(tensor, large)
    return pair


def _bounded(tensor: Tensor, large: float) -> Tensor:
    if tensor.is_complex():
        return torch.complex(_bounded(tensor.real, large), _bounded(tensor.imag, large))
    return tensor.nan_to_num(posinf=large, neginf=-large)
