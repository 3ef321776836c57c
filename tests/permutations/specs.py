"""Specs made by hand: a whole axis, a part, a list of positions, several axes, nested groups."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.permutations import Group, Layout, PermutationSpec, Slot

WHOLE = PermutationSpec(
    groups=(Group("a", 4),),
    slots=(
        Slot("a", "in", (0,), Layout(1, 4)),
        Slot("a", "out", (1,), Layout(1, 4)),
        Slot("a", "kernel", (1,), Layout(1, 4)),
    ),
    shapes={"in": (4, 3), "out": (2, 4), "kernel": (2, 4, 3), "free": (5,)},
)

FLATTENED = PermutationSpec(
    groups=(Group("a", 3),),
    slots=(Slot("a", "w", (1,), Layout(1, 3, stride=4, inner=4)), Slot("a", "b", (0,), Layout(1, 3))),
    shapes={"w": (2, 12), "b": (3,)},
)

PART = PermutationSpec(
    groups=(Group("a", 3), Group("b", 2)),
    slots=(
        Slot("a", "w", (0,), Layout(1, 3, offset=1)),
        Slot("b", "w", (0,), Layout(1, 2, offset=5)),
        Slot("a", "gates", (0,), Layout(1, 3, stride=1, outer=2, outer_stride=4)),
    ),
    shapes={"w": (8, 2), "gates": (8,)},
)

LISTED = PermutationSpec(
    groups=(Group("a", 3),),
    slots=(Slot("a", "w", (0,), Layout.from_table(np.array([[[0, 6], [5, 1], [3, 2]]]))),),
    shapes={"w": (7, 2)},
)

SEVERAL_AXES = PermutationSpec(
    groups=(Group("a", 6),),
    slots=(
        Slot("a", "w", (0, 2), Layout(1, 6)),
        Slot("a", "v", (0,), Layout(1, 6)),
        Slot("a", "part", (0, 1), Layout(1, 6, offset=1)),
    ),
    shapes={"w": (2, 4, 3), "v": (6,), "part": (2, 4)},
)

NESTED = PermutationSpec(
    groups=(Group("heads", 2), Group("inner", 3, 2, "heads"), Group("cell", 2, 6, "inner")),
    slots=(
        Slot("heads", "w", (0,), Layout(1, 2, stride=6, inner=6)),
        Slot("inner", "w", (0,), Layout(2, 3, block_stride=6, stride=2, inner=2)),
        Slot("cell", "w", (0,), Layout(6, 2, block_stride=2)),
        Slot("heads", "scale", (0,), Layout(1, 2)),
        Slot("inner", "square", (0,), Layout(2, 3, block_stride=3)),
        Slot("heads", "square", (0,), Layout(1, 2, stride=3, inner=3)),
        Slot("heads", "square", (1,), Layout(1, 2)),
    ),
    shapes={"w": (12, 2), "scale": (2,), "square": (6, 2)},
)

SPECS = {
    "whole": WHOLE,
    "flattened": FLATTENED,
    "part": PART,
    "listed": LISTED,
    "several_axes": SEVERAL_AXES,
    "nested": NESTED,
}


def state_of(spec: PermutationSpec, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Normal tensors of the spec's shapes."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(s, generator=generator, dtype=dtype) for name, s in spec.shapes.items()}


def matrices_of(spec: PermutationSpec, seed: int = 0) -> dict[str, Tensor]:
    """Arbitrary square matrices, one per group and block."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.randn(*group.shape, group.size, generator=generator, dtype=torch.float64)
        for group in spec.groups
    }
