"""Alignment from the weights alone: weight matching with restarts, and the scales that bring weights closest."""

from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin._typing import Heads
from sinkhorn_rebasin.losses import WeightDistance
from sinkhorn_rebasin.matching import Alignment, weight_matching
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec, normalize_state_scales
from sinkhorn_rebasin.permutations.continuous import NO_CONTINUOUS as NO_CONTINUOUS
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.rebasin import SinkhornRebasin

SCALE_STEPS, SCALE_RATE = 100, 0.05
ELEMENTS_AT_ONCE = 1_000_000_000
FEWEST_SCALE_STEPS = 10


def matched_by_weights(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    rescaling: RescalingSpec | None,
    continuous: ContinuousSpec,
    restarts: int,
    seed: int,
    heads: Heads = "reference",
) -> tuple[str, SinkhornRebasin]:
    r"""Return the re-basin whose weights are closest to the reference's, and how it was found.

    Weights are matched as they are and, where units may be scaled, with incoming norms of one as well. Scales are
    then fitted at those permutations,

    .. math:: \min_s \lVert \pi(\rho_s(\theta_T)) - \theta_R \rVert^2

    and the closest is kept. Networks of a billion weights are matched once; their scales stay.

    Args:
        reference, target: the networks.
        spec, rescaling: their symmetries; without rescalings no scale is fitted.
        continuous: the groups that are turned, of networks in canonical form.
        restarts: orders of the groups that are tried.
        seed: of these orders.
        heads: whose ignored layers the networks in between have.

    Example:
        >>> from sinkhorn_rebasin import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> spec = discover_symmetry(net, torch.ones(2, 3))
        >>> name, rebasin = matched_by_weights(net, net, spec, None, NO_CONTINUOUS, 2, 0)
        >>> name, rebasin.hard_permutations()["0"].tolist()
        ('weight_matching', [0, 1, 2, 3, 4, 5, 6, 7])
    """
    states = tensors_of(reference), tensors_of(target)
    elements = max(1, sum(states[0][name].numel() for name in spec.parameters))
    scaled = rescaling is not None and bool(rescaling.shapes(spec))
    candidates = {"weight_matching": states}
    if rescaling is not None and scaled:
        first, second = (normalize_state_scales(state, spec, rescaling) for state in states)
        candidates["weight_matching of normalized scales"] = first, second
    matched: dict[str, Alignment] = {
        name: weight_matching(
            *pair,
            spec,
            rescaling=rescaling,
            symmetry=continuous or None,
            restarts=max(1, min(restarts, ELEMENTS_AT_ONCE // elements)),
            generator=torch.Generator().manual_seed(seed),
        )
        for name, pair in candidates.items()
    }
    rebasins = {
        name: SinkhornRebasin(
            reference,
            target,
            spec=spec,
            rescale=rescaling or False,
            symmetry=continuous,
            start=start,
            check=False,
            heads=heads,
        )
        for name, start in matched.items()
    }
    steps = min(SCALE_STEPS, ELEMENTS_AT_ONCE // elements)
    for rebasin in rebasins.values():
        if steps >= FEWEST_SCALE_STEPS and rebasin.log_scales:
            fit_scales(rebasin, steps)
    distances = {name: _distance(rebasin) for name, rebasin in rebasins.items()}
    best = min(distances, key=lambda name: distances[name])
    return best, rebasins[best]


def fit_scales(rebasin: SinkhornRebasin, steps: int = SCALE_STEPS) -> None:
    """Move log-scales to where the weights are closest, at hard permutations; keep the closest.

    Args:
        rebasin: with scales.
        steps: of Adam.
    """
    training, loss = rebasin.training, WeightDistance("l2")
    scales = list(rebasin.log_scales.parameters())
    optimizer = torch.optim.Adam(scales, lr=SCALE_RATE)
    best, kept = float("inf"), [scale.detach().clone() for scale in scales]
    rebasin.eval()
    with torch.enable_grad():
        for _ in range(steps + 1):
            value = loss(rebasin)
            if (now := float(value.detach())) < best:
                best, kept = now, [scale.detach().clone() for scale in scales]
            for scale, gradient in zip(scales, torch.autograd.grad(value, scales), strict=True):
                scale.grad = gradient
            optimizer.step()
    for scale, value in zip(scales, kept, strict=True):
        scale.detach().copy_(value)
        scale.grad = None
    rebasin.train(training)


@torch.no_grad()
def _distance(rebasin: SinkhornRebasin) -> float:
    training = rebasin.training
    distance = float(WeightDistance("l2")(rebasin.eval()))
    rebasin.train(training)
    return distance
