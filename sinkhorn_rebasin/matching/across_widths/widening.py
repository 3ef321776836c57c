"""A network carried exactly into a wider one of its architecture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from sinkhorn_rebasin._typing import ExampleInputs, State
from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.matching.across_widths.padding import check_like, padded_state
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.copying import Module, standalone_copy
from sinkhorn_rebasin.networks.nested_tensors import largest_change
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations import ContinuousSpec, PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS, check_continuous
from sinkhorn_rebasin.permutations.gain_folding import generators_of_gain
from sinkhorn_rebasin.permutations.rescaling import check_rescaling
from sinkhorn_rebasin.permutations.units_of_slots import scaled_units, with_ties
from sinkhorn_rebasin.symmetry.continuous.function_proof import TOLERANCE, FunctionProof
from sinkhorn_rebasin.symmetry.rescaling.discovery import discover_rescaling
from sinkhorn_rebasin.symmetry.rescaling.sensitivity import draw_run, run_precisely


def widen_into(
    model: nn.Module,
    like: Module,
    spec: PermutationSpec,
    spec_like: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    continuous: ContinuousSpec | None = None,
    rescaling: RescalingSpec | None = None,
) -> Module:
    r"""Carry a network into a wider one: a copy of ``like`` that computes what ``model`` does.

    Units, heads and channels that the small network lacks are zeros. A stream of n units under RMS norms becomes

    .. math:: x' = \sqrt{m / n}\; [x, 0] \in \mathbb{R}^m

    so that its mean square, and with it each norm's epsilon, stays the same; what reads the norms is divided by the
    factor. Random turns of the wider network's own symmetries spread the units out afterwards.

    Args:
        model: the network; neither it nor ``like`` is changed.
        like: a network of the same architecture with as many units or more everywhere; its weights are not used.
        spec, spec_like: the symmetries of both, from :func:`discover_symmetry` on each.
        example_inputs: inputs that both run on.
        continuous: the continuous symmetries of ``model``; they tell which streams pass through norms. None: none.
        rescaling: the rescalings of ``model``, which tell what reads a norm; found when they are needed.

    Note:
        Layer norms take the mean over all m units. Streams under them must have none: canonicalize(model) first.

    Raises:
        ArchitectureError: when the networks differ in more than numbers of units; what differs is named.
        SymmetryError: when the wider network computes something else: group norms over other channels, say.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> small, large = (nn.Sequential(nn.Linear(3, n), nn.GELU(), nn.Linear(n, 2)) for n in (4, 9))
        >>> x = torch.randn(5, 3)
        >>> wide = widen_into(small, large, discover_symmetry(small, x), discover_symmetry(large, x), x)
        >>> wide[0].weight.shape, torch.allclose(wide(x), small(x), atol=1e-6)
        (torch.Size([9, 3]), True)

    Source: zeros for new units as in Chen, Goodfellow, Shlens, "Net2Net" (2016); streams under RMS norm as in
    Ashkboos et al., "SliceGPT" (2024), read the other way.
    """
    check_like(spec, spec_like)
    continuous = NO_CONTINUOUS if continuous is None else continuous
    check_continuous(continuous)
    if rescaling is not None:
        check_rescaling(rescaling)
    if rescaling is None and any(symmetry.gains for symmetry in continuous.symmetries):
        rescaling = discover_rescaling(model, spec, example_inputs, signs=False)
    wide = standalone_copy(like)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        small, large = (
            FunctionProof(model, spec, example_inputs),
            FunctionProof(like, spec_like, example_inputs),
        )
        fill = _ones_in(like, continuous)
        changes = []
        for scaled in _scaled_states(small.state, spec, spec_like, continuous, rescaling):
            state = padded_state(scaled, spec, spec_like, fill)
            changes.append(_change(small, large, state))
            if changes[-1] <= TOLERANCE:
                break
        else:
            raise SymmetryError(
                f"Expected a wider {type(like).__name__} that computes the same but its output differs by "
                f"{min(changes):.1e}: norms over units that are new need streams without a mean (canonicalize the "
                f"network first), and their gains among the continuous symmetries given."
            )
        for name, tensor in named_tensors(wide).items():
            if name in spec_like.shapes:
                tensor.copy_(state[name])
    return wide


def _change(small: FunctionProof, large: FunctionProof, state: State) -> float:
    inputs, expected = draw_run(small.network, small.state, small.example_inputs, small.generator)
    return largest_change(expected, run_precisely(large.network, state, inputs))


def _ones_in(network: nn.Module, continuous: ContinuousSpec) -> dict[str, float]:
    """Tensors that hold ones where they are padded: gains and variances."""
    ones = {gain for symmetry in continuous.symmetries for gain in symmetry.gains}
    for name, module in network.named_modules():
        if isinstance(module, _NormBase | nn.LayerNorm | nn.RMSNorm):
            ones |= {f"{name}.weight".lstrip("."), f"{name}.running_var".lstrip(".")}
    return dict.fromkeys(ones, 1.0)


def _scaled_states(
    state: State,
    spec: PermutationSpec,
    larger: PermutationSpec,
    continuous: ContinuousSpec,
    rescaling: RescalingSpec | None,
) -> Iterator[State]:
    """The small weights scaled for what divides by the number of units: norms, and scores of wider heads.

    Whether scores are divided by the root of the size of a head is not known: both are tried.
    """
    ratios = {name: larger[name].size / spec[name].size for name in spec.names}
    scaled = dict(state)
    for symmetry in continuous.symmetries:
        name = symmetry.group.name
        if symmetry.gains and rescaling is not None and ratios.get(name, 1.0) != 1.0:
            readers = _readers(rescaling, name, symmetry.gains)
            for slot in spec.slots_of(name):
                if slot.tensor in spec.parameters and slot.tensor not in symmetry.gains:
                    factor = ratios[name] ** (-0.5 if (slot.tensor, slot.axes) in readers else 0.5)
                    scaled[slot.tensor] = scaled_units(scaled[slot.tensor], slot, factor)
    scores = [
        symmetry
        for symmetry in continuous.symmetries
        if symmetry.kind != "orthogonal"
        and ratios.get(symmetry.group.name, 1.0) != 1.0
        and {slot.axes for slot, _ in symmetry.exponents} == {(0,)}
        and {sign for _, sign in symmetry.exponents} == {1, -1}
    ]
    for divided in (True, False) if scores else (False,):
        tried = dict(scaled)
        for symmetry in scores if divided else ():
            for slot, sign in symmetry.exponents:
                if sign > 0:
                    factor = ratios[symmetry.group.name] ** 0.5
                    tried[slot.tensor] = scaled_units(tried[slot.tensor], slot, factor)
        yield with_ties(tried, spec)


def _readers(
    rescaling: RescalingSpec, group: str, gains: tuple[str, ...]
) -> set[tuple[str, tuple[int, ...]]]:
    """Tensors and axes that read a norm: scaled the other way when its gain is."""
    readers = set()
    for gain in gains:
        for generator, at in generators_of_gain(rescaling, group, gain):
            side = dict(generator.exponents)[at]
            readers |= {
                (slot.tensor, slot.axes) for slot, exponent in generator.exponents if exponent * side < 0
            }
    return readers
