"""The loss of a merged network as REPAIR leaves it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, Permutations
from sinkhorn_rebasin.activations import RepairAlongPath
from sinkhorn_rebasin.activations.affine_layers import AffineLayer
from sinkhorn_rebasin.activations.repair_sites import stages_of
from sinkhorn_rebasin.errors import LossError
from sinkhorn_rebasin.losses.connectivity import RandomPointLoss
from sinkhorn_rebasin.losses.corrected_outputs import (
    Correction,
    at_front,
    corrected,
    corrected_outputs,
    output_slots,
)
from sinkhorn_rebasin.networks.execution import batch_statistics, run_at
from sinkhorn_rebasin.networks.layers import folded_in
from sinkhorn_rebasin.networks.randomness import untouched_randomness
from sinkhorn_rebasin.networks.scoring import scored
from sinkhorn_rebasin.networks.task_loss import task_loss
from sinkhorn_rebasin.permutations import permute_tensor


class RepairLoss(RandomPointLoss):
    r"""Evaluate the task loss behind REPAIR, between the networks.

    .. math:: \mathcal C\bigl(\mathrm{REPAIR}((1-\lambda)\, \pi_P(\theta_T) + \lambda\, \theta_R)\bigr),
        \qquad \lambda \sim \mathcal U(\mathrm{low}, \mathrm{high})

    Units of a mixture vary too little, and permutations that are best for the mixture as it is are not best once that
    is mended (:func:`~sinkhorn_rebasin.repair`): train them for the network that will be used. Statistics of the
    mixture are those of the batch, and so are differentiated; those of the endpoints were measured once, the target's
    are moved with its units. In networks with batch norm everywhere this is :class:`RandomPointLoss`.

    Args:
        criterion: (outputs, labels) to a scalar; cross entropy by default.
        repair: ``RepairAlongPath(reference, target, spec, data)`` of the two networks the re-basin was
            made of, the target in its own order.
        low, high: the range of λ within [0, 1].
        generator: draws λ; without it torch's global random state does.
        batch: a function from a batch to (inputs, labels), for data that yield something else.

    Raises:
        LossError: without ``repair``, or when not 0 ≤ low ≤ high ≤ 1. When called, for a re-basin that learns scales
            or signs: they make up for the same loss of variance.

    Example:
        >>> import torch.nn.functional as F
        >>> from sinkhorn_rebasin import SinkhornRebasin
        >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
        >>> x, labels = torch.randn(64, 4), torch.randint(3, (64,))
        >>> rebasin = SinkhornRebasin(a, b, x[:2])
        >>> loss = RepairLoss(F.cross_entropy, RepairAlongPath(a, b, rebasin.spec, [x]), 0.5, 0.5)
        >>> merged = rebasin.eval().merge(0.5, repair=[x])
        >>> torch.allclose(loss(rebasin, (x, labels)), F.cross_entropy(merged(x), labels), atol=1e-4)
        True

    Source of REPAIR: Jordan, Sedghi, Saukh, Entezari, Neyshabur (2023); to train through it is this package's idea.
    """

    def __init__(
        self,
        criterion: Criterion = task_loss,
        repair: RepairAlongPath | None = None,
        low: float = 0.4,
        high: float = 0.6,
        *,
        generator: torch.Generator | None = None,
        batch: BatchAdapter | None = None,
    ) -> None:
        super().__init__(criterion, low, high, generator=generator, batch=batch)
        if not isinstance(repair, RepairAlongPath):
            raise LossError(
                f"Expected repair to be RepairAlongPath(reference, target, spec, data) but got "
                f"{type(repair).__name__}."
            )
        self.repair = repair
        self._folded = folded_in(repair.network)
        stages, _ = stages_of(repair.network, repair.spec, repair.end, repair.inputs[0])
        self._layers = {layer: stage for layer, stage in stages.items() if isinstance(stage, AffineLayer)}

    def __call__(self, rebasin: Any, batch: Any) -> Tensor:
        """Return the loss of a batch of (inputs, labels)."""
        if rebasin.log_scales or rebasin.sign_scores:
            raise LossError(
                "Expected a re-basin of permutations alone but it learns scales or signs too: make it with "
                "SinkhornRebasin(..., rescale=False), or train it by RandomPointLoss."
            )
        inputs, labels = self.read(rebasin, batch)
        position = self.position()
        network = self.repair.network
        permutations = rebasin.permutations()
        state = rebasin.state_at(position, permutations=permutations)
        corrected = corrected_outputs(self._corrections(permutations, position))
        statistics = batch_statistics(network, rebasin.training, self._folded)
        with corrected, statistics, untouched_randomness():
            outputs = run_at(network, state, inputs)
        return scored(self.criterion, outputs, labels)

    def _corrections(self, permutations: Permutations, position: float) -> dict[nn.Module, Correction]:
        """Make per layer the correction for a position."""
        found: dict[nn.Module, Correction] = {}
        for layer, stage in self._layers.items():
            slots = at_front(output_slots(self.repair.spec, stage))
            start, end = self.repair.start_moments[stage.name], self.repair.end_moments[stage.name]
            weight = self.repair.end[stage.weight]
            dtype = torch.promote_types(weight.dtype, torch.float32)
            goal = [
                torch.lerp(
                    permute_tensor(first.to(dtype), slots, permutations).to(dtype), second.to(dtype), position
                )
                for first, second in ((start.mean, end.mean), (start.deviation(), end.deviation()))
            ]
            axis = 1 - weight.ndim  # counted from the end, where there are as many axes of positions
            mean = None if self.repair.rescale_only else goal[0]
            found[layer] = partial(corrected, stage=stage, axis=axis, mean=mean, deviation=goal[1])
        return found
