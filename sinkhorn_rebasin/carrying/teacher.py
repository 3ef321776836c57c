"""Who is followed where an update is learned: labels, the tuned network, or a sum of three networks' outputs."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from sinkhorn_rebasin.carrying.drawn_text import class_axis
from sinkhorn_rebasin.carrying.scale import followed
from sinkhorn_rebasin.carrying.way import CarryProblem
from sinkhorn_rebasin.errors import LossError, SpecError
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.batches import move_to, read_batch
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import device_of, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import logits_of

Followed: TypeAlias = Literal["tuned", "sum"]
MOST_KEPT = 2**27
"""Numbers of wanted outputs that are kept in memory; those of wide vocabularies are computed anew."""


class Teacher:
    """Give the loss of outputs on a batch.

    Args:
        problem: with a criterion for labels; without one, outputs are compared as :func:`followed` does.
        follow: ``"tuned"``, or ``"sum"`` for the outputs of the new base plus the tuned network's minus the base's.

    Raises:
        SpecError: another name.
        LossError: there is no criterion and the tuned network has other labels.
    """

    def __init__(self, problem: CarryProblem, follow: Followed) -> None:
        if follow not in get_args(Followed):
            raise SpecError(f"Expected follow to be one of {get_args(Followed)} but got {follow!r}.")
        if problem.criterion is None and problem.heads:
            raise LossError(
                "Expected a criterion, since networks of other labels have outputs that cannot be followed, but got "
                "none: pass criterion=, a function of (outputs, labels), and labelled data."
            )
        self.problem = problem
        networks = [(1.0, problem.tuned)]
        if follow == "sum":
            networks += [(1.0, problem.new_base), (-1.0, problem.base)]
        self._networks: list[tuple[float, nn.Module]] = [
            (sign, evaluation_copy(network)) for sign, network in networks if problem.criterion is None
        ]
        self._axis: int | None = None
        self._device = device_of(tensors_of(problem.new_base))
        self._kept = 0
        # With the batch itself, so that no other gets its number.
        self._read: dict[int, tuple[Any, tuple[Any, Any]]] = {}

    def batch(self, batch: Any) -> tuple[Any, Any]:
        """Return inputs with labels or wanted outputs.

        As many outputs as have room are computed once.
        """
        problem = self.problem
        if id(batch) in self._read:
            return self._read[id(batch)][1]
        labelled = problem.criterion is not None
        inputs, labels = read_batch(batch, problem.batch, network=problem.new_base, labelled=labelled)
        inputs, labels = (move_to(part, self._device) for part in (inputs, labels))
        read = inputs, labels if labelled else self._wanted(inputs)
        self._kept += read[1].numel() if isinstance(read[1], Tensor) else 0
        if self._kept <= MOST_KEPT:
            self._read[id(batch)] = batch, read
        return read

    def loss(self, outputs: Any, wanted: Any) -> Tensor:
        """Return the mean loss of outputs."""
        criterion = self.problem.criterion
        return (
            scored(criterion, outputs, wanted)
            if criterion is not None
            else followed(outputs, wanted, self._axis or -1)
        )

    @torch.no_grad()
    def _wanted(self, inputs: Any) -> Any:
        with untouched_randomness():
            outputs = [
                (sign, logits_of(out))
                for sign, out in ((sign, run_at(network, {}, inputs)) for sign, network in self._networks)
            ]
        if self._axis is None:
            self._axis = class_axis(self.problem.tuned, inputs, outputs[0][1])
        if len(outputs) == 1:
            return outputs[0][1]
        return sum(sign * out for sign, out in outputs)
