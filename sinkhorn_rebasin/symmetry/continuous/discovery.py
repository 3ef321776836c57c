"""Find the continuous symmetries of any network from numbers alone."""

from __future__ import annotations

import torch
from torch import nn

from sinkhorn_rebasin._typing import ExampleInputs
from sinkhorn_rebasin.errors import SymmetryError
from sinkhorn_rebasin.networks.architecture import named_tensors
from sinkhorn_rebasin.networks.support import check_supported
from sinkhorn_rebasin.networks.undisturbed import undisturbed
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.completeness import check_state
from sinkhorn_rebasin.permutations.continuous import ContinuousSpec, check_continuous
from sinkhorn_rebasin.permutations.rescaling import check_rescaling
from sinkhorn_rebasin.symmetry.continuous.batch_norm import batch_norms_to_fold
from sinkhorn_rebasin.symmetry.continuous.folding import (
    rescaling_of_gains,
    with_reasons_of_gains,
    with_unfoldable,
)
from sinkhorn_rebasin.symmetry.continuous.gains_less_one import with_gains_less_one
from sinkhorn_rebasin.symmetry.continuous.proof import change_of
from sinkhorn_rebasin.symmetry.continuous.search import Search
from sinkhorn_rebasin.symmetry.rescaling.discovery import TOLERANCE, in_precision
from sinkhorn_rebasin.symmetry.rescaling.trials import Trials


def discover_continuous(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: ExampleInputs,
    *,
    rescaling: RescalingSpec | None = None,
    fold_batch_norm: bool = False,
    generator: torch.Generator | None = None,
) -> ContinuousSpec:
    r"""Find the largest group of matrices that mixes the units of each group and changes nothing.

    If slot k of a group can move by :math:`X_k W_k`, then for all inputs, weights and random c

    .. math:: \sum_k \langle G_k, X_k \rangle = 0, \qquad
        G_k = \frac{\partial \langle c, f_\theta(x)\rangle}{\partial W_k} W_k^\top

    Permutations are symmetries, so one coefficient a slot is unknown in each part of the matrix algebra.
    What solves the equations is then proven by random finite elements, on new inputs, in double precision.

    - Groups that turn only once some vectors are one, or zero, have their names in ``gains`` and ``shifts``.
    - Gains that no rescaling takes into their readers are named in ``reasons``. Where they are gains less one, so
      that the network multiplies by 1 + w, they can be folded: ``less_one``.
    - It speaks of the function in eval mode, and of the parameters: statistics are never turned.

    Args:
        model: the network; neither it nor its mode nor the random state is changed.
        spec: its permutation symmetries: larger ones are looked for among their groups.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        rescaling: the rescalings of the same network, if they are known.
        fold_batch_norm: look for the symmetries that streams have once their batch norms are folded into the layers
            before them, as those of inverted residuals. :func:`canonicalize` folds them, which is a form for
            inference: such norms keep their statistics in training mode from then on.
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
    check_state(spec, named_tensors(model))
    if rescaling is not None:
        check_rescaling(rescaling)
    generator = generator or torch.Generator("cpu").manual_seed(0)

    def search(trials: Trials) -> ContinuousSpec:
        """Find the groups, then which of their gains stay."""
        continuous = Search(trials, fold_batch_norm).run()
        if any(symmetry.gains for symmetry in continuous.symmetries):
            known = rescaling or rescaling_of_gains(trials, continuous)
            norms = batch_norms_to_fold(trials.network, continuous)
            continuous = with_gains_less_one(trials, with_unfoldable(spec, continuous, known, norms))
        return with_reasons_of_gains(continuous)

    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        return in_precision(search, model, spec, example_inputs, TOLERANCE, generator)


def verify_continuous(
    model: nn.Module,
    spec: PermutationSpec,
    continuous: ContinuousSpec,
    example_inputs: ExampleInputs,
    *,
    generator: torch.Generator | None = None,
) -> float:
    """Prove continuous symmetries by random elements, at weights and inputs that differ from the given ones.

    Args:
        model: the network; neither it nor its mode nor the random state is changed.
        spec: its permutation symmetries.
        continuous: the continuous ones, found on another network of the architecture or written by hand.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        generator: draws weights, inputs and maps; without it they are the same in every call.

    Returns:
        The largest relative change of the output.

    Raises:
        SymmetryError: when maps change the output; names each such group, with the size of the change.
        ArchitectureError: when the network does not run on the inputs, or cannot be copied.
        SpecError: when the symmetries are of another network.

    Example:
        >>> from sinkhorn_rebasin.symmetry import discover_symmetry
        >>> net = nn.Sequential(nn.Linear(3, 9), nn.GELU(), nn.Linear(9, 4), nn.Linear(4, 2))
        >>> spec, x = discover_symmetry(net, torch.randn(4, 3)), torch.randn(4, 3)
        >>> verify_continuous(net, spec, discover_continuous(net, spec, x), x) < 1e-12
        True
    """
    check_supported(model)
    check_state(spec, named_tensors(model))
    check_continuous(continuous)
    generator = generator or torch.Generator("cpu").manual_seed(0)

    def changes(trials: Trials) -> tuple[float, dict[str, float]]:
        """The change by all at once, and by each that changes too much."""
        symmetries = continuous.symmetries
        if not symmetries or (together := change_of(trials, symmetries)) <= trials.tolerance:
            return (together if symmetries else 0.0), {}
        alone = {one.group.name: change_of(trials, [one]) for one in symmetries}
        guilty = {name: change for name, change in alone.items() if not change <= trials.tolerance}
        return together, guilty or {"none of the groups alone, only together": together}

    with torch.inference_mode(False), torch.no_grad(), undisturbed():
        change, guilty = in_precision(changes, model, spec, example_inputs, TOLERANCE, generator)
    if guilty:
        raise SymmetryError(
            f"Expected continuous symmetries that leave the output of {type(model).__name__} unchanged but got a "
            f"relative change of {change:.1e}; failing groups: "
            f"{', '.join(f'{name!r} ({size:.1e})' for name, size in guilty.items())}. Discover them with "
            f"discover_continuous(...).",
            groups=[name for name in guilty if name in continuous],
        )
    return change
