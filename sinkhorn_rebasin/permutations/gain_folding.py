"""Norm gains of one: what they multiply by goes into the layers that read the norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sinkhorn_rebasin._typing import State, StateLike
from sinkhorn_rebasin.errors import SymmetryError, listed
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, ContinuousSymmetry
from sinkhorn_rebasin.permutations.rescaling import RescalingSpec, ScaleSymmetry, rescale_state
from sinkhorn_rebasin.permutations.slots import Slot
from sinkhorn_rebasin.permutations.spec import PermutationSpec
from sinkhorn_rebasin.permutations.units_of_slots import filled, unit_rows


def fold_gains(
    state: StateLike, spec: PermutationSpec, continuous: ContinuousSpec, rescaling: RescalingSpec
) -> State:
    r"""Make norms' gains one, keeping the function.

    .. math:: \gamma_i \to 1, \qquad \beta_i \to \beta_i / \gamma_i, \qquad W_{\cdot i} \to W_{\cdot i}\, \gamma_i

    by the rescaling that holds the gain. Negative gains turn the sign of their unit as well.

    Args:
        state: tensor name to tensor; passed on where nothing is folded.
        spec, continuous, rescaling: the symmetries of the network.

    Raises:
        SymmetryError: when a gain is in no rescaling, or holds a zero; it is named.
    """
    moved = dict(state)
    for symmetry in continuous.symmetries:
        gains = [name for name in symmetry.gains if not bool((state[name] == 1).all())]
        if gains:
            moved = _folded(moved, spec, rescaling, symmetry, gains)
    return moved


def generators_of_gain(rescaling: RescalingSpec, group: str, gain: str) -> list[tuple[ScaleSymmetry, Slot]]:
    """List a group's positive rescalings that hold a gain.

    Each comes with the slot of the gain.
    """
    if group not in rescaling.groups:
        return []
    return [
        (generator, slot)
        for generator in rescaling.of(group)
        for slot, _ in generator.exponents
        if slot.tensor == gain
    ]


def _folded(
    state: State,
    spec: PermutationSpec,
    rescaling: RescalingSpec,
    symmetry: ContinuousSymmetry,
    gains: Sequence[str],
) -> State:
    group = symmetry.group.name
    slots = [_slot_of_gain(rescaling, group, gain) for gain in gains]
    values = torch.stack([_values(state[slot.tensor], slot) for slot in slots])
    powers = _powers(rescaling.of(group), symmetry, gains)
    shape = rescaling.shapes(spec)[group]
    logs = -(powers @ values.abs().log()).reshape(shape)
    moved = rescale_state(state, spec, rescaling, {group: logs})
    if bool((values < 0).any()):
        parities = (powers.round().long() % 2).to(values) @ (values < 0).to(values)
        flips = RescalingSpec(
            rescaling.groups, tuple(replace(one, kind="sign") for one in rescaling.of(group))
        )
        moved = rescale_state(moved, spec, flips, signs={group: (1 - 2 * (parities % 2)).reshape(shape)})
    for slot in slots:
        moved[slot.tensor] = filled(moved[slot.tensor], slot, 1.0)
    return moved


def _slot_of_gain(rescaling: RescalingSpec, group: str, gain: str) -> Slot:
    holders = generators_of_gain(rescaling, group, gain)
    if not holders:
        raise SymmetryError(
            f"Expected a rescaling of group {group!r} that moves the gain {gain!r} into what reads it but got none: "
            f"its reader is tied to a tensor that writes, or the norm is added to a stream, or the gain is no mere "
            f"factor. Give a tied reader its own tensor with untie(model), or the norm a matrix with expand(model, "
            f"[{gain!r}], inputs), and discover the symmetries of the result; or set the gain to one, "
            f"or leave the group out.",
            groups=(group,),
        )
    return holders[0][1]


def _values(gain: Tensor, slot: Slot) -> Tensor:
    values = unit_rows(gain, slot)
    if values.shape[-1] != 1 or bool((values == 0).any()):
        held = "several numbers a unit" if values.shape[-1] != 1 else f"{int((values == 0).sum())} zeros"
        raise SymmetryError(
            f"Expected the gain {slot.tensor!r} to hold one number other than zero for each unit of group "
            f"{slot.group!r} but got {held}: what is multiplied by zero cannot be folded.",
            groups=(slot.group,),
        )
    return values.double().flatten()


def _powers(
    generators: Sequence[ScaleSymmetry], symmetry: ContinuousSymmetry, gains: Sequence[str]
) -> Tensor:
    """Find each gain's powers in every generator.

    They are such that the gain alone becomes one: (generators, gains).
    """
    known = symmetry.gains
    exponents = torch.tensor(
        [[sum(e for s, e in one.exponents if s.tensor == gain) for one in generators] for gain in known],
        dtype=torch.float64,
    )
    wanted = torch.eye(len(known), dtype=torch.float64)[:, [known.index(gain) for gain in gains]]
    powers = torch.linalg.pinv(exponents) @ wanted
    if not torch.allclose(exponents @ powers, wanted) or not torch.allclose(powers, powers.round()):
        raise SymmetryError(
            f"Expected one rescaling for each of the gains {listed(gains)} but got some that move several of them "
            f"together only: set them to one, or leave the group out.",
            groups=(symmetry.group.name,),
        )
    return powers
