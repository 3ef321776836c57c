"""The mean of what several networks return, at the cost of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.merging.states import check_modules, check_several
from sinkhorn_rebasin.networks.copying import evaluation_copy


class Ensemble(nn.Module):
    r"""Average what several networks return.

    .. math:: \log \frac1M \sum_m \operatorname{softmax}(f_m(x)) \quad\text{or}\quad \frac1M \sum_m f_m(x)

    It takes what its members take. Running it costs as much as running all of them. The members are copies in
    eval mode.

    Args:
        members: at least two networks that return tensors of one shape.
        class_axis: axis of the classes, whose probabilities are averaged; None averages the outputs themselves.

    Raises:
        ArchitectureError: fewer than two members, or one that is no module.
        LossError: a member returns no tensor, or one of another shape.

    Example:
        >>> ensemble = Ensemble([nn.Linear(3, 2), nn.Linear(3, 2)])
        >>> ensemble(torch.ones(4, 3)).exp().sum(1).allclose(torch.ones(4))
        True

    Source: Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles" (2017).
    """

    def __init__(self, members: Sequence[nn.Module], class_axis: int | None = 1) -> None:
        super().__init__()
        check_several(members, "in an ensemble")
        check_modules({f"member {number}": member for number, member in enumerate(members)})
        self.members = nn.ModuleList(evaluation_copy(member) for member in members)
        self.class_axis = class_axis

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        """Run all members, and average what they return."""
        outputs = [member(*arguments, **named) for member in self.members]
        for number, output in enumerate(outputs):
            if not isinstance(output, Tensor) or output.shape != outputs[0].shape:
                got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise LossError(
                    f"Expected every member of an ensemble to return a tensor of one shape but member {number} "
                    f"returned {got}."
                )
        if self.class_axis is None:
            return torch.stack(outputs).mean(0)
        logs = torch.stack([output.log_softmax(self.class_axis) for output in outputs])
        return logs.logsumexp(0) - torch.tensor(float(len(outputs))).log()

    def extra_repr(self) -> str:
        """Tell how many members there are."""
        return f"{len(self.members)} members"
