"""Optimal transport between networks of different widths: units are shared out, layer by layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import ArchitectureError
from sinkhorn_rebasin.files.given_networks import state_of
from sinkhorn_rebasin.matching.across_widths.transport_plan import transport_plan, unit_distances
from sinkhorn_rebasin.matching.across_widths.width_pairs import (
    SlotPair,
    UnitMaps,
    carry_tensor,
    check_shapes,
    pair_slots,
)
from sinkhorn_rebasin.matching.layer_by_layer import groups_in_order
from sinkhorn_rebasin.matching.weights.similarity import units_of
from sinkhorn_rebasin.permutations import PermutationSpec, Slot
from sinkhorn_rebasin.permutations.completeness import check_spec, check_state

# Of PyTorch's layers these have their outputs on the second axis.
_OUTPUTS_SECOND = (nn.Embedding, nn.EmbeddingBag, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def ot_fusion_across_widths(
    reference: nn.Module | StateLike,
    target: nn.Module | StateLike,
    reference_spec: PermutationSpec,
    target_spec: PermutationSpec,
    *,
    regularization: float | None = None,
    transposed: Collection[str] = (),
) -> State:
    r"""Carry a target onto a reference's widths.

    This goes layer by layer. The function is **not** kept.

    .. math:: W'_l = (n_l T_l)\, W_l\, (m_{l-1} T_{l-1})^\top, \qquad b'_l = (n_l T_l)\, b_l

    with T (n, m) the cheapest plan between n units of the reference and m of the target, each of equal mass, their
    distance taken over all that comes into them, as in :func:`ot_fusion`. A new unit is the average of those carried
    to it (the rows of nT sum to one), and what read a unit is shared out to where it went (the columns of mT sum to
    one): units that are merged though they are equal, or split, change nothing. Between equal widths both maps are
    the permutation of :func:`ot_fusion`. Batch norm's means and variances are averaged like the weights that
    come in.

    No symmetry connects networks of different widths. So of all methods here this alone does not keep the target's
    function: measure the result before use, and take it as a start of training or for an average. Only where every
    n is a multiple of m do exact plans split each unit into n/m equal ones, which most layers do not notice.

    Args:
        reference, target: networks of one architecture, but for the widths of hidden layers, or their states;
            neither is changed.
        reference_spec, target_spec: their symmetries, from :func:`discover_symmetry` on each.
        regularization: weight of the plan's entropy in units of the mean distance of a group; None for exact plans.
            An entropic plan blurs: every new unit has a part of all units.
        transposed: names of parameters that make units on another axis than their first, where linear and
            convolution layers have their outputs: weights of shape (in, out), position tables (places, width).
            Those of transposed convolutions and embeddings are known where a network is given as a module. The
            specs do not tell what makes a unit from what reads it: what is missing here is scaled by n/m. Depthwise
            and grouped transposed convolutions do not belong here: each group of theirs is made and read on axis 0.

    Returns:
        The target's state in the shapes of the reference, for example for :class:`LinearPath`. Tensors without a
        slot are shared with the target.

    Raises:
        ImportError: when POT is not installed.
        ArchitectureError: when the networks differ in more than widths, one cannot tell what makes and what reads
            the units of a group whose width differs, or its weights are computed from other tensors (weight_norm):
            these cannot be averaged and shared out in place of the weights.
        AssignmentError: when weights are not finite, or the regularization is not positive.
        SpecError: when a spec is of another network, or has nested groups, which are named.

    Warns:
        ConvergenceWarning: when an entropic plan misses its marginals.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> narrow, wide = (nn.Sequential(nn.Linear(5, n), nn.Tanh(), nn.Linear(n, 2)) for n in (4, 8))
        >>> twice = {"0.weight": narrow[0].weight.repeat(2, 1), "0.bias": narrow[0].bias.repeat(2)}
        >>> twice |= {"2.weight": narrow[2].weight.repeat(1, 2) / 2, "2.bias": narrow[2].bias}
        >>> specs = [discover_symmetry(net, torch.randn(3, 5)) for net in (narrow, wide)]
        >>> merged = ot_fusion_across_widths(narrow, twice, *specs)
        >>> all(torch.equal(merged[name], tensor) for name, tensor in narrow.state_dict().items())
        True

    Source: Singh, Jaggi, "Model fusion via optimal transport" (2020), whose code divides both sides by one network's
    masses, so that between different widths what reads merged units is averaged where it is summed here.
    """
    for spec in (reference_spec, target_spec):
        check_spec(spec)
    first = state_of(reference, "reference", reference_spec.shapes)
    second = state_of(target, "target", target_spec.shapes)
    check_state(reference_spec, first)
    check_state(target_spec, second)
    flipped = {*transposed, *_transposed_in(reference), *_transposed_in(target)}
    _check_transposed(set(transposed) - set(first), flipped, reference_spec, target_spec)
    order = list(groups_in_order(reference_spec, "ot_fusion_across_widths"))
    _check_plain(reference_spec, target_spec)
    pairs = pair_slots(reference_spec, target_spec, flipped)
    check_shapes(first, second, pairs)
    maps: dict[str, UnitMaps] = {}
    for group, slots in order:
        ours, theirs = [], []
        for slot in slots:
            ours.append(_features(first[slot.tensor], slot))
            theirs.append(_features_carried(second[slot.tensor], slot, pairs, maps, reference_spec))
        cost = unit_distances(torch.cat(ours, 1), torch.cat(theirs, 1))
        plan = transport_plan(cost, regularization)
        # By its own sums an entropic plan, too, is made of averages and shares; one cut short may forget a unit.
        tiny = torch.finfo(plan.dtype).tiny
        maps[group.name] = UnitMaps(
            plan / plan.sum(1, keepdim=True), plan / plan.sum(0, keepdim=True).clamp_min(tiny)
        )
    return {
        name: carry_tensor(tensor, pairs.get(name, ()), maps, first[name].shape).to(tensor.dtype)
        for name, tensor in second.items()
    }


def _features(tensor: Tensor, slot: Slot) -> Tensor:
    return units_of(tensor, slot)[0].double().cpu()


def _features_carried(
    tensor: Tensor,
    slot: Slot,
    pairs: Mapping[str, list[SlotPair]],
    maps: Mapping[str, UnitMaps],
    spec: PermutationSpec,
) -> Tensor:
    """Return what the target's units own, carried over.

    The units are those of a slot. The other axes of the tensor are carried onto the reference.
    """
    on_tensor = pairs[slot.tensor]
    others = [pair for pair in on_tensor if pair.ours.axes != slot.axes]
    own = next(pair.theirs for pair in on_tensor if pair.ours == slot)
    return _features(carry_tensor(tensor, others, maps, spec.shapes[slot.tensor]), own)


def _transposed_in(network: nn.Module | StateLike) -> set[str]:
    """Name weights with outputs on the second axis.

    They are those of a module's layers. A convolution in groups is not among them: its first axis holds the groups,
    each with what it reads and makes.
    """
    if not isinstance(network, nn.Module):
        return set()
    return {
        f"{name}.weight".lstrip(".")
        for name, child in network.named_modules(remove_duplicate=False)
        if isinstance(child, _OUTPUTS_SECOND) and getattr(child, "groups", 1) == 1
    }


def _check_plain(reference: PermutationSpec, target: PermutationSpec) -> None:
    """Raise ArchitectureError where computed weights differ in width.

    A width must not differ on tensors that weights are only computed from.
    """
    for slot in reference.slots:
        name = slot.tensor
        differs = slot.group in target and reference[slot.group].size != target[slot.group].size
        # The older torch.nn.utils.weight_norm keeps a direction weight_v and a length weight_g.
        in_two = name.endswith("_v") and f"{name[:-2]}_g" in reference.shapes
        if differs and (in_two or "parametrizations" in name.split(".")):
            raise ArchitectureError(
                f"Expected weights themselves where the width of group {slot.group!r} differs but got {name!r}, from "
                f"which a weight is computed: first remove the parametrisation (weight_norm) from both networks."
            )


def _check_transposed(
    unknown: set[str], transposed: set[str], reference: PermutationSpec, target: PermutationSpec
) -> None:
    """Raise ArchitectureError unless transposed tensors are understood.

    It must not name what is no tensor, nor one that is read and written on one axis.
    """
    if unknown:
        raise ArchitectureError(
            f"Expected transposed to name tensors of the networks but got {sorted(unknown)}."
        )
    for names in reference.tied:
        differs = any(
            slot.group in target and reference[slot.group].size != target[slot.group].size
            for slot in reference.slots_on(names[0])
        )
        if differs and len({name in transposed for name in names}) > 1:
            raise ArchitectureError(
                f"Expected the outputs of one tensor on one axis but got the names {sorted(names)}, of which only "
                f"{sorted(transposed & set(names))} is transposed: tied so, its widths cannot change."
            )
