"""Optimal plans between the units of two layers: who is carried onto whom, and how much of it."""

from __future__ import annotations

import math
import warnings
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from sinkhorn_rebasin.assignment.scores import check_finite
from sinkhorn_rebasin.errors import AssignmentError, ConvergenceWarning
from sinkhorn_rebasin.networks.randomness import untouched_randomness

_TOLERANCE, _ITERATIONS = 1e-6, 10_000


def unit_distances(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return Euclidean distances between units.

    Units are given by their features, (n, elements) and (m, elements).

    Raises:
        AssignmentError: when they are not finite.
    """
    # Differences, not products: between equal units the distance is then exactly zero.
    distances = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    check_finite(distances, "distances between the units' weights")
    return distances


def transport_plan(cost: Tensor, regularization: float | None = None) -> Tensor:
    r"""Find the cheapest transport between units.

    It carries m units onto n. All units of a network have equal mass.

    .. math:: T = \arg\min_{T \ge 0} \langle T, C \rangle - \varepsilon \bar C H(T)
        \quad\text{with}\quad T 1 \propto 1,\ T^\top 1 \propto 1

    Args:
        cost: C, shape (n, m), float64 on the CPU.
        regularization: ε > 0 in units of the mean cost; None for the exact plan (ε = 0).

    Returns:
        The plan, shape (n, m), in units of a mass that both m and n share out evenly: an exact plan has whole
        numbers, and is a permutation matrix where m = n.

    Raises:
        ImportError: when POT is not installed.
        AssignmentError: when the regularization is not positive and finite.

    Warns:
        ConvergenceWarning: when the entropic plan misses its marginals.

    >>> transport_plan(torch.tensor([[0.0, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.float64)).tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    ot = _pot()
    n, m = cost.shape
    common = math.gcd(n, m)
    ours, theirs = (torch.full((k,), mass / common, dtype=torch.float64) for k, mass in ((n, m), (m, n)))
    if regularization is None:
        # More iterations than POT's default for wide layers.
        plan = ot.emd(ours.numpy(), theirs.numpy(), cost.numpy(), numItermax=10_000_000)
        # Whole masses flow in whole numbers.
        return torch.from_numpy(plan).round()
    if not (math.isfinite(regularization) and regularization > 0):
        raise AssignmentError(
            f"Expected regularization to be positive and finite, or None for the exact plan, but got "
            f"{regularization}."
        )
    total = float(ours.sum())
    with np.errstate(over="ignore"):  # An early marginal error may be infinite.
        plan, log = ot.sinkhorn(
            (ours / total).numpy(),
            (theirs / total).numpy(),
            cost.numpy(),
            # Units that are all alike cost nothing: any regularization will do.
            regularization * (float(cost.mean()) or 1.0),
            method="sinkhorn_log",
            numItermax=_ITERATIONS,
            stopThr=_TOLERANCE,
            log=True,
            warn=False,
        )
    if not log["err"][-1] <= _TOLERANCE:
        warnings.warn(
            f"Expected a marginal error of at most {_TOLERANCE:g} but got {log['err'][-1]:.3g} after {_ITERATIONS} "
            f"iterations at regularization {regularization:g}; raise it, or use None for the exact plan.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return torch.from_numpy(plan) * total


def _pot() -> ModuleType:
    try:
        # Its modules draw from the global random states when they are imported.
        with untouched_randomness():
            import ot
    except ImportError as error:
        raise ImportError(
            "Expected the package POT for optimal transport but it is not installed: pip install POT."
        ) from error
    return ot
