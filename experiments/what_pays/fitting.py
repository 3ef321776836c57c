"""Merges whose layers are fitted, one after the other, to what the networks compute on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import sinkhorn_rebasin
from experiments.what_pays.merging import Merge
from experiments.what_pays.problem import Given, Problem
from sinkhorn_rebasin.front.gain import simplest, together
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.resizing import resized
from sinkhorn_rebasin.permutations import identity_permutations

RIDGES = (1e-1, 1e-2, 1e-3)
"""Pulls to the plain mean, relative to an input's mean square; held-out samples decide. The strongest comes first."""
BATCH = 500


@dataclass(frozen=True)
class Fit:
    """Hold a merge whose layers are fitted.

    Attributes:
        ridge: that held-out samples decided on.
        network: fitted with it on all samples.
        decided_on: fitted on those that train alone, so that held-out samples can decide on what is made of it; the
            network where samples are in folds.
        of_folds: fitted without one fold each.
    """

    ridge: float
    network: nn.Module
    decided_on: nn.Module
    of_folds: Sequence[nn.Module] = ()


def fitted(problem: Problem, inputs: Tensor, merge: Merge, ridge: float) -> nn.Module:
    r"""Fit each layer of a merge to the mean of what its networks compute there.

    .. math:: \min_{W, b}\; \tfrac1M \sum_m \mathbb E_x \bigl\lVert W \hat x + b - W_m x_m - b_m \bigr\rVert^2

    with :math:`\hat x` what goes into the layer of the merged network, whose earlier layers are fitted already. There
    are no steps: each layer is solved for.

    Args:
        problem: with the symmetries.
        inputs: that are fitted on; no labels are looked at.
        merge: with the networks it is the mean of, in one order.
        ridge: of the pull to the mean.
    """
    batches = list(inputs.split(BATCH))
    stays = Alignment(identity_permutations(problem.spec), problem.spec)
    state = sinkhorn_rebasin.regmean_plus_plus(
        merge.aligned,
        [stays] * len(merge.aligned),
        [batches] * len(merge.aligned),
        alpha=1.0,
        ridge=ridge,
        biases=True,
        targets="own",
    )
    return resized(merge.network, dict(state))


def best_fit(problem: Problem, given: Given, merge: Merge) -> Fit:
    """Fit a merge with the ridge that held-out samples decide on."""
    parts = given.folds or (given,)
    fits = {ridge: [fitted(problem, part.train[0], merge, ridge) for part in parts] for ridge in RIDGES}
    losses = [
        together([problem.task.losses(fit, part.held_out) for fit, part in zip(each, parts, strict=True)])
        for each in fits.values()
    ]
    ridge = RIDGES[simplest(losses)]
    everything = given.train[0] if given.folds else torch.cat([given.train[0], given.held_out[0]])
    network = fitted(problem, everything, merge, ridge)
    return Fit(ridge, network, network, fits[ridge]) if given.folds else Fit(ridge, network, *fits[ridge])
