"""What rescalings do to the units of one axis, apart from the weights that lie there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sinkhorn_rebasin.permutations.rescaling import Factors, RescalingSpec, factors_by_place, summed
from sinkhorn_rebasin.permutations.slots import Slot


def scales_along(
    rescaling: RescalingSpec, log_scales: Factors, slots: Sequence[Slot], length: int
) -> Tensor | None:
    """Return what an axis is multiplied by, (length,).

    Each unit has its positive factor there. None where nothing is scaled.

    Args:
        rescaling: the scales that are free.
        log_scales: per group, as for :func:`rescale_state`.
        slots: of one tensor, on one axis.
        length: of that axis.

    >>> import torch
    >>> from sinkhorn_rebasin.permutations import ScaleSymmetry
    >>> from sinkhorn_rebasin.permutations.layout import Layout
    >>> slot = Slot("a", "w", (0,), Layout(1, 2))
    >>> rescaling = RescalingSpec(("a",), (ScaleSymmetry("a", "positive", ((slot, -1),)),))
    >>> scales_along(rescaling, {"a": torch.tensor([[0.0, 1.0]])}, [slot], 3).log().tolist()
    [0.0, -1.0, 0.0]
    """
    places = factors_by_place(rescaling, log_scales, "positive")
    keys = dict.fromkeys((slot.tensor, slot.axes) for slot in slots)
    parts = [part for tensor, axes in keys for part in places.get(tensor, {}).get(axes, [])]
    if not parts:
        return None
    return summed(parts, (0,), parts[0][2].new_empty(length)).exp()
