"""Find the continuous symmetries of any network from numbers alone."""

from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec
from sinkhorn_rebasin.symmetry.continuous.search import Search
from sinkhorn_rebasin.symmetry.rescaling.discovery import TOLERANCE, in_precision


def discover_continuous(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    rescaling: RescalingSpec | None = None,
    generator: torch.Generator | None = None,
) -> ContinuousSpec:
    r"""Find the largest group of matrices that mixes the units of each group and changes nothing.

    If slot k of a group can move by :math:`X_k W_k`, then for all inputs, weights and random c

    .. math:: \sum_k \langle G_k, X_k \rangle = 0, \qquad
        G_k = \frac{\partial \langle c, f_\theta(x)\rangle}{\partial W_k} W_k^\top

    Permutations are symmetries, so one coefficient a slot is unknown in each part of the matrix algebra.
    What solves the equations is then proven by random finite elements, on new inputs, in double precision.

    - Groups that turn only once some vectors are one, or zero, have their names in ``gains`` and ``shifts``.
    - Gains that no rescaling takes into their readers are named in ``reasons``.
    - It speaks of the function in eval mode, and of the parameters: statistics are never turned.

    Args:
        model: the network; neither it nor its mode nor the random state is changed.
        spec: its permutation symmetries: larger ones are looked for among their groups.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        rescaling: the rescalings of the same network, if they are known.
        generator: draws weights, inputs and maps; without it they are the same in every call.

    Raises:
        ArchitectureError: when the network does not run on the inputs, has no derivatives, or cannot be copied.
        SpecError: when the spec is of another network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 9), nn.GELU(), nn.Linear(9, 4), nn.Linear(4, 9), nn.Linear(9, 2))
        >>> spec = discover_symmetry(net, torch.randn(4, 3))
        >>> [(one.group.name, one.kind) for one in discover_continuous(net, spec, torch.randn(4, 3)).symmetries]
        [('2', 'linear'), ('3', 'linear')]

    Source: conservation laws of Kunin et al., "Neural mechanics" (2021), for matrices; Schur's lemma.
    """
    check_supported(model)
    spec.check_state(named_tensors(model))
    generator = generator or torch.Generator("cpu").manual_seed(0)
    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        return in_precision(
            lambda trials: Search(trials).run(), model, spec, example_inputs, TOLERANCE, generator
        )
