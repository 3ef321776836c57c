"""A loss on the outputs of two networks of other tasks, for the alignment that merges them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, State
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.merging.partial.first_inputs import inputs_of
from sinkhorn_rebasin.merging.partial.merged_state import Maps, merged_state
from sinkhorn_rebasin.merging.partial.two_networks import TwoNetworks
from sinkhorn_rebasin.merging.partial.unit_merge import UnitMerge
from sinkhorn_rebasin.networks.copying import evaluation_copy
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.networks.task_loss import scores_of
from sinkhorn_rebasin.permutations import PermutationSpec


class BothOutputsLoss:
    r"""Compare a trunk with two heads to both networks.

    .. math:: \mathcal C\Bigl(h_R\bigl(t(x)\bigr), f_R(x)\Bigr) + \mathcal C\Bigl(\pi_P(h_T)\bigl(t(x)\bigr),
        f_T(x)\Bigr), \qquad t = \tfrac12\, \pi_P(\theta_T) + \tfrac12\, \theta_R

    The trunk t is the mean of the reference and the re-based target, and each network's head reads it. No labels are
    needed: what both networks answer on the same inputs is the goal. Batch norm runs on the statistics of the batch.

    Args:
        reference, target: modules of one architecture but for their heads; neither is changed.
        spec: their symmetries, from :func:`discover_symmetry`.
        criterion: (outputs, goal) of one network to a scalar; None: the squared error over the goal's variance.
        heads: names or patterns of the last layers; None: all.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        ArchitectureError, SpecError: networks that differ in more than heads, or nested groups.
        LossError: no head is kept apart. When called: the re-basin is of another network.
        DataError: when called: no output is a tensor.

    Example:
        >>> from sinkhorn_rebasin.rebasin import sinkhorn_matching
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n)) for n in (3, 2))
        >>> x = torch.randn(16, 4)
        >>> spec = discover_symmetry(a, x)
        >>> loss = BothOutputsLoss(a, b, spec)
        >>> alignment = sinkhorn_matching(a, b, spec, data=[x], loss=loss, steps=5, ignore=["2"])
        >>> alignment.objective[-1] > 0
        True
    """

    def __init__(
        self,
        reference: nn.Module,
        target: nn.Module,
        spec: PermutationSpec,
        *,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        heads: Sequence[str] | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        self.networks = TwoNetworks.of(reference, target, spec, heads)
        if not self.networks.heads:
            raise LossError(
                "Expected at least one last layer that is kept apart but got none: leave out heads=()."
            )
        self.criterion, self.batch = criterion or relative_error, batch
        self._pair = [evaluation_copy(network) for network in (reference, target)]
        stay = {g.name: Maps.of(UnitMerge.paired(range(g.size))) for g in self.networks.spec.groups}
        with torch.no_grad():
            self._merged = evaluation_copy(resized(reference, merged_state(self.networks, stay)))

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss of a batch.

        A batch is inputs, or (inputs, labels).
        """
        inputs = inputs_of(self.networks, batch, self.batch)
        state = self._state(rebasin.reference_state(), rebasin.rebased_state())
        with untouched_randomness():
            with torch.no_grad():
                goals = [scores_of(run_at(network, {}, inputs)) for network in self._pair]
            with batch_statistics(self._merged, True):
                outputs = scores_of(run_at(self._merged, state, inputs))
        axis = next(iter(_differing(outputs, goals[0])), 1)
        parts = outputs.split([goal.shape[axis] for goal in goals], axis)
        losses = [self.criterion(part, goal) for part, goal in zip(parts, goals, strict=True)]
        return losses[0] + losses[1]

    def _state(self, reference: State, rebased: State) -> State:
        """Return the mean of both trunks.

        Both heads lie side by side.
        """
        if set(reference) != set(self.networks.states[0]):
            raise LossError(
                "Expected a re-basin of the networks that this loss was made with but got others."
            )
        state: State = {}
        for name, tensor in reference.items():
            if name in self.networks.heads:
                state[name] = torch.cat([tensor, rebased[name]], self.networks.heads[name])
            elif tensor.is_floating_point():
                state[name] = torch.lerp(rebased[name], tensor, 0.5)
            else:
                state[name] = tensor
        return state


def relative_error(outputs: Tensor, goal: Tensor) -> Tensor:
    """Return the mean squared error.

    It is in units of the goal's variance.

    >>> relative_error(torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0])).item()
    1.0
    """
    return (outputs - goal).square().mean() / goal.var(correction=0).clamp_min(1e-12)


def _differing(one: Tensor, other: Tensor) -> list[int]:
    return [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
