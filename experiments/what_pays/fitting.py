"""Merges whose layers are fitted, one after the other, to what the networks compute on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import sinkhorn_rebasin
from experiments.what_pays.merging import Merge, best_on_held_out
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
    """Fit a merge with every ridge, decide on one by held-out samples, and fit with it on all samples."""
    if given.folds:
        return _best_fit_of_folds(problem, given, merge)
    train, held_out = given.train[0], given.held_out[0]
    networks = {str(ridge): fitted(problem, train, merge, ridge) for ridge in RIDGES}
    ridge, decided_on = best_on_held_out(problem, given, networks)
    return Fit(float(ridge), fitted(problem, torch.cat([train, held_out]), merge, float(ridge)), decided_on)


def _best_fit_of_folds(problem: Problem, given: Given, merge: Merge) -> Fit:
    """Decide on a ridge by the samples that each fit did not see."""
    fits = {ridge: [fitted(problem, fold.train[0], merge, ridge) for fold in given.folds] for ridge in RIDGES}
    losses = [
        together(
            [problem.task.losses(fit, fold.held_out) for fit, fold in zip(each, given.folds, strict=True)]
        )
        for each in fits.values()
    ]
    ridge = RIDGES[simplest(losses)]
    network = fitted(problem, given.train[0], merge, ridge)
    return Fit(ridge, network, network, fits[ridge])
