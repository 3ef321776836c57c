"""A merged network put together, and the proof that its groups may have other sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import ArchitectureError, RebasinError, listed
from sinkhorn_rebasin.merging.partial.merged_state import Maps, merged_state
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.networks.copying import evaluation_copy, inputs_like
from sinkhorn_rebasin.networks.double_precision import narrow_tolerance
from sinkhorn_rebasin.networks.execution import run_at
from sinkhorn_rebasin.networks.nested_tensors import largest_change, tensors_in
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.resizing import resized


def assembled(
    networks: TwoNetworks, merges: Mapping[str, UnitMerge], example_inputs: ExampleInputs
) -> nn.Module:
    """Put a merged network together.

    It is a copy of the reference in which every layer has the size of its merged units. That sizes may change is
    proven first: with units of the target beside the reference's that nothing of the reference reads, the outputs
    of the reference stay.

    Raises:
        ArchitectureError: a group whose number of units cannot change, or heads whose outputs cannot lie side by
            side; they are named.
    """
    wide = [name for name, merge in merges.items() if merge.size != merge.units]
    if not _can_be_beside(networks, wide, example_inputs):
        faulty = [name for name in wide if not _can_be_beside(networks, [name], example_inputs)]
        what = f"groups {listed(map(repr, faulty or wide))}" if wide else f"heads {listed(networks.heads)}"
        raise ArchitectureError(
            f"Expected {type(networks.reference).__name__} to compute the same with units of another network beside "
            f"its own but its output changes, or it does not run, with more of the {what}: norms over all units and "
            f"sizes written in a forward do not allow it. "
            + ("Merge these groups in full." if wide else "Pass heads=() to average the last layers.")
        )
    maps = {name: Maps.of(merge) for name, merge in merges.items()}
    return resized(networks.reference, merged_state(networks, maps))


def _can_be_beside(networks: TwoNetworks, wide: Collection[str], example_inputs: ExampleInputs) -> bool:
    """Tell whether wide groups change nothing.

    Units of the target lie beside the reference's.
    """
    maps = {}
    for group in networks.spec.groups:
        eye = torch.eye(group.size, dtype=torch.float64, device="cpu")
        if group.name in wide:
            both = torch.eye(2 * group.size, dtype=torch.float64, device="cpu")
            maps[group.name] = Maps(both, both)
        else:
            maps[group.name] = Maps(torch.cat([eye, torch.zeros_like(eye)], 1), torch.cat([eye, eye]))
    try:
        twin = resized(networks.reference, merged_state(networks, maps, (1.0, 0.0)))
    except ArchitectureError:
        if len(wide) != 1:
            return False
        raise
    with torch.inference_mode(False), torch.no_grad(), untouched_randomness(forked=True):
        before = run_at(evaluation_copy(networks.reference), {}, inputs_like(example_inputs))
        try:
            after = run_at(evaluation_copy(twin), {}, inputs_like(example_inputs))
        except (RuntimeError, ValueError, TypeError, IndexError, RebasinError):
            return False
    after = _reference_outputs(before, after, networks.heads)
    tolerance = narrow_tolerance(networks.reference.parameters())
    return after is not None and largest_change(before, after) <= tolerance


def _reference_outputs(before: object, after: object, heads: Mapping[str, int]) -> object:
    """Cut outputs that lie side by side.

    Those of the trunk, such as features beside the logits, are as they were. None where no outputs lie side by side.
    """
    ours, theirs = tensors_in(before), tensors_in(after)
    if not heads:
        return after
    if len(ours) != len(theirs):
        return None
    cut = []
    for one, other in zip(ours, theirs, strict=True):
        axes = [axis for axis in range(min(one.dim(), other.dim())) if one.shape[axis] != other.shape[axis]]
        if len(axes) > 1 or one.dim() != other.dim():
            return None
        cut.append(other.narrow(axes[0], 0, one.shape[axes[0]]) if axes else other)
    return cut if any(one.shape != other.shape for one, other in zip(ours, theirs, strict=True)) else None
