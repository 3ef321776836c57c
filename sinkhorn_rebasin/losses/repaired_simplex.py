"""The loss of a random mean of several networks as REPAIR leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Permutations
from sinkhorn_rebasin.activations import RepairAlongPath
from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.activations.repair_sites import stages_of
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.corrected_outputs import (
    Correction,
    at_front,
    corrected,
    corrected_outputs,
    output_slots,
)
from sinkhorn_rebasin.losses.simplex import SimplexLoss
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.layers import folded_in
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.permutations import Slot, permute_tensor
from sinkhorn_rebasin.permutations.unit_scales import scales_along


class RepairSimplexLoss(SimplexLoss):
    r"""Evaluate the task loss behind REPAIR, at random means.

    .. math:: \mathcal C\Bigl(\mathrm{REPAIR}\Bigl(\sum_m w_m\, \pi_m(\theta_m)\Bigr)\Bigr), \qquad
        w \sim \mathrm{Dirichlet}(\alpha M s_1, \dots, \alpha M s_M)

    The mean of several networks varies less than that of two, and REPAIR mends more of it. Statistics of the mean
    are those of the batch, and so are differentiated. Those of the networks were measured once; they are moved and
    scaled with the units.

    Args:
        criterion: (outputs, labels) to a scalar; without one :func:`task_loss`.
        repair: ``RepairAlongPath(first, others, spec, data)`` of the networks the joint re-basin was made of, each
            in its own order.
        concentration, middle, generator, batch: as for :class:`SimplexLoss`.

    Raises:
        LossError: without ``repair``, or with one of another number of networks; a concentration or middle that is
            none. When called, for a re-basin that learns signs: REPAIR has no sign for a mean of both.

    Example:
        >>> import torch.nn.functional as F
        >>> from sinkhorn_rebasin.merging import JointRebasin
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> x, labels = torch.randn(64, 4), torch.randint(3, (64,))
        >>> joint = JointRebasin(nets, x[:2])
        >>> repair = RepairAlongPath(nets[0], nets[1:], joint.spec, [x])
        >>> loss = RepairSimplexLoss(F.cross_entropy, repair, float("inf"))
        >>> merged = joint.eval().merge(repair=[x])
        >>> torch.allclose(loss(joint, (x, labels)), F.cross_entropy(merged(x), labels), atol=1e-4)
        True

    Source of REPAIR: Jordan, Sedghi, Saukh, Entezari, Neyshabur (2023); to train through it is this package's idea.
    """

    def __init__(
        self,
        criterion: Criterion = task_loss,
        repair: RepairAlongPath | None = None,
        concentration: float = 8.0,
        *,
        middle: Sequence[float] | None = None,
        generator: torch.Generator | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(criterion, concentration, middle=middle, generator=generator, batch=batch)
        if not isinstance(repair, RepairAlongPath):
            raise LossError(
                f"Expected repair to be RepairAlongPath(first, others, spec, data) but got {type(repair).__name__}."
            )
        self.repair = repair
        self._folded = folded_in(repair.network)
        stages, _ = stages_of(repair.network, repair.spec, repair.end, repair.inputs[0])
        self._layers = {layer: stage for layer, stage in stages.items() if isinstance(stage, AffineLayer)}

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss of a batch of (inputs, labels)."""
        if any(one.sign_scores for one in rebasin.rebasins):
            raise LossError(
                "Expected a re-basin without signs, of which REPAIR knows no mean, but it learns some: make it with "
                "rescale=False."
            )
        inputs, labels = self.read(rebasin, batch)
        shares, permutations = self.shares(len(rebasin)), rebasin.permutations()
        if len(shares) != len(self.repair.moments):
            raise LossError(
                f"Expected repair= of {len(shares)} networks but got one of {len(self.repair.moments)}."
            )
        state = rebasin.state_at(shares, permutations=permutations)
        network = self.repair.network
        corrections = corrected_outputs(self._corrections(rebasin, permutations, shares))
        statistics = batch_statistics(network, rebasin.training, self._folded)
        with corrections, statistics, untouched_randomness():
            outputs = run_at(network, state, inputs)
        return scored(self.criterion, outputs, labels)

    def _corrections(
        self, rebasin: Any, permutations: Sequence[Permutations], shares: Sequence[float]
    ) -> dict[nn.Module, Correction]:
        """Make each layer's correction for these shares."""
        first, *others = self.repair.moments
        found: dict[nn.Module, Correction] = {}
        for layer, stage in self._layers.items():
            weight = self.repair.end[stage.weight]
            dtype = torch.promote_types(weight.dtype, torch.float32)
            slots = output_slots(self.repair.spec, stage)
            mean, deviation = (
                shares[0] * value.to(dtype)
                for value in (first[stage.name].mean, first[stage.name].deviation())
            )
            for one, share, moments, order in zip(
                rebasin.rebasins, shares[1:], others, permutations, strict=True
            ):
                moved = _moved(one, slots, stage.outputs, order, dtype)
                mean = mean + share * moved(moments[stage.name].mean)
                deviation = deviation + share * moved(moments[stage.name].deviation())
            axis = 1 - weight.ndim  # counted from the end, where there are as many axes of positions
            goal = None if self.repair.rescale_only else mean
            found[layer] = partial(corrected, stage=stage, axis=axis, mean=goal, deviation=deviation)
        return found


def _moved(
    rebasin: Any, slots: Sequence[Slot], length: int, permutations: Permutations, dtype: torch.dtype
) -> Any:
    """Return what scales and orders a layer's outputs.

    It does so as the re-basin does.
    """
    log_scales: Mapping[str, Tensor] = dict(rebasin.log_scales.items())
    scales = scales_along(rebasin.rescaling, log_scales, slots, length)

    def moved(values: Tensor) -> Tensor:
        """Scale and order a value of each unit."""
        values = values.to(dtype) if scales is None else values.to(dtype) * scales.to(values.device, dtype)
        return permute_tensor(values, at_front(slots), permutations).to(dtype)

    return moved
