"""A permutation spec in words: the table that ``print(spec)`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sinkhorn_rebasin.permutations.spec import PermutationSpec, Slot


def describe(spec: PermutationSpec) -> str:
    """Groups with sizes, parents and slots, the share of parameters covered, what is frozen and why."""
    units = sum(group.size * group.blocks for group in spec.groups)
    lines = [
        f"PermutationSpec: {len(spec.groups)} groups, {units} units, {len(spec.slots)} slots, "
        f"{spec.coverage:.1%} of parameter elements on a permutable axis"
    ]
    width = max((len(name) for name in spec.names), default=0)
    for group in spec.groups:
        size = str(group.size) if group.blocks == 1 else f"{group.blocks} x {group.size}"
        inside = f" inside {group.parent}" if group.parent else ""
        slots = ", ".join(_slot_text(slot) for slot in spec.slots_of(group.name))
        lines.append(f"  {group.name:<{width}}  {size:>9}{inside}  {slots}")
    reasons: dict[str, list[str]] = {}
    for item in spec.frozen:
        reasons.setdefault(item.reason, []).append(f"{item.tensor}[{item.axis}]")
    if reasons:
        lines.append("frozen:")
    for reason, axes in reasons.items():
        shown = ", ".join(axes[:4]) + (f" and {len(axes) - 4} more" if len(axes) > 4 else "")
        lines.append(f"  {reason}: {shown}")
    return "\n".join(lines)


def _slot_text(slot: Slot) -> str:
    axes = ",".join(str(axis) for axis in slot.axes)
    layout = slot.layout
    extent = f" from {layout.offset}" if layout.offset else ""
    extent += f" x {layout.width}" if layout.width > 1 else ""
    return f"{slot.tensor}[{axes}{extent}]"
