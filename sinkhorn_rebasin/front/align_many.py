"""The front door for several networks: networks and data in, one alignment of all out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, NetworkLike
from sinkhorn_rebasin.activations import RepairAlongPath
from sinkhorn_rebasin.errors import ArchitectureError, DataError, LossError
from sinkhorn_rebasin.front.criteria import criterion_for, examples_in
from sinkhorn_rebasin.front.data import AlignmentData, alignment_data
from sinkhorn_rebasin.front.many_fits import ManyFits
from sinkhorn_rebasin.front.many_starts import starts_of
from sinkhorn_rebasin.front.mean_loss import LossOfMean
from sinkhorn_rebasin.front.preparation import seeded
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.losses import RepairSimplexLoss, SimplexLoss
from sinkhorn_rebasin.merging import JointRebasin, ManyAlignment, match_many
from sinkhorn_rebasin.merging.match_many import ManyMethod
from sinkhorn_rebasin.merging.states import check_several, check_shares, states_of
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.permutations.ignoring import patterns_in
from sinkhorn_rebasin.symmetry import discover_rescaling
from sinkhorn_rebasin.symmetry.requested import requested_symmetry
from sinkhorn_rebasin.symmetry.rescaling.discovery import requested_rescaling


def align_many(
    networks: Sequence[NetworkLike],
    spec: PermutationSpec | None = None,
    *,
    train: Any = None,
    validation: Any = None,
    method: ManyMethod | None = None,
    criterion: Criterion | None = None,
    concentration: float = 8.0,
    shares: Sequence[float] | None = None,
    batch: BatchAdapter | None = None,
    example_inputs: ExampleInputs = None,
    ignore: Sequence[str] = (),
    rescale: bool | RescalingSpec = True,
    repair: bool = False,
    recipe: Recipe | None = None,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    progress: bool = True,
) -> ManyAlignment:
    r"""Align several networks with the first.

    Without data their weights are matched: see :func:`match_many`. With data, that is the start, and all permutations
    and scales are learned together, so that the mean is a good network:

    .. math:: \min_{\pi_2, \dots, \pi_M} \mathbb E_w\, \mathcal C\Bigl(\sum_m w_m\, \pi_m(\theta_m)\Bigr),
        \qquad w \sim \mathrm{Dirichlet}(\alpha)

    The start is the best of several on held-out data, or an earlier one that is within a standard error of it. Soft
    permutations are annealed in cycles, each from the best so far, then scales settle at hard ones. Each fit keeps
    what has the lowest loss of the mean by s on held-out data. The start is kept unless that gains more than chance
    would, as for :func:`align`, and :attr:`ManyAlignment.notes` say so. Neither the networks nor the data nor any
    random state is changed, and a seed gives the same result on the same machine.

    Args:
        networks: at least two, of one architecture; without data states will do.
        spec: their symmetries, instead of discovering them.
        train, validation: as for :func:`align`.
        method: of :func:`match_many`; None: the best on held-out data of ``"merge_many"``, ``"frank_wolfe"``,
            matching each by activations to the first and the networks as they are, or ``"merge_many"`` without data.
        criterion: (outputs, labels) to the mean loss of a batch; None: as for :func:`align`.
        concentration: α. At 8 the middle becomes good, at 1 all of the simplex, and infinity is the middle alone.
        shares: s, the mean that is wanted, one number above zero a network; equal without it.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        example_inputs: what the networks take; by default from the first batch.
        ignore: layers that each network keeps for itself, such as heads of other classes, by name or pattern. Last
            layers of other shapes are ignored without being named. The loss is that of the first network's head.
        rescale: learn scales and signs too, or the rescalings themselves. The first network has none: one factor for
            a unit in all networks leaves their mean as it is.
        repair: learn what is best for a mean that REPAIR puts right, and judge it so; signs are not learned then.
            :meth:`ManyAlignment.to_model` does the REPAIR.
        recipe: how it is trained; None: ``Recipe.many()``.
        seed: of everything that is drawn.
        trainer: options of Lightning's Trainer.
        seconds: of weight matching at most.
        progress: show bars.

    Returns:
        One alignment a network, into the order of the first.

    Raises:
        ArchitectureError: fewer than two networks, or networks that differ; the first tensor is named.
        DataError: data that are empty, read only once, without labels, or cannot be split; no data for REPAIR.
        SpecError: ``rescale`` is neither true nor false nor rescalings of these networks.

    Example:
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> many = align_many(nets, example_inputs=torch.randn(2, 4), progress=False)
        >>> merged = many.merge(nets)
        >>> many.method, len(many), merged["0.weight"].shape
        ('merge_many', 3, torch.Size([8, 4]))

    Source: this package; the pair: Guerrero-Peña et al. (2023).
    """
    check_several(networks, "to align")
    shares = _above_zero(shares, len(networks))
    with torch.inference_mode(False), seeded(seed):
        recipe = recipe or Recipe.many()
        data = (
            None
            if train is None
            else alignment_data(train, validation, recipe.validation_samples, seed, batch)
        )
        first = next((network for network in networks if isinstance(network, nn.Module)), None)
        if example_inputs is None and data is not None and first is not None:
            example_inputs = examples_in(first, data.validation[0], batch)
        spec = _symmetry(first, spec, example_inputs)
        spec = states_of(networks, spec.ignoring(*patterns_in(ignore)) if ignore else spec)[1]
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {"generator": generator, "seconds": seconds, "progress": progress}
        if data is None:
            if repair:
                raise DataError("Expected training data to do REPAIR with but got none: pass train=.")
            return match_many(networks, spec, method=method or "merge_many", **options)
        reference = _module(networks[0])
        measure = _measure(reference, data, criterion, batch)
        starts = starts_of(networks, spec, method, data.first(recipe.start_samples, batch), batch, **options)
        statistics = data.first(recipe.statistics_samples, batch)
        scales = _scales(reference, spec, rescale, repair, example_inputs)
        joints = [
            JointRebasin(networks, example_inputs, spec=spec, start=start, rescale=scales) for start in starts
        ]
        mended = RepairAlongPath(networks[0], networks[1:], spec, statistics, batch=batch) if repair else None
        loss = _loss(measure, mended, concentration, middle=shares, batch=batch)
        judge = LossOfMean(measure, statistics, repair=repair, shares=shares, batch=batch)
        fits = ManyFits(data, judge, loss, recipe, trainer or {}, progress)
        joint, told = fits.best(joints, [start.method for start in starts])
        with seeded(seed):
            notes = (told, *fits.run(joint), f"judged on {data.kept_out}")
        return replace(joint.alignment(), notes=notes)


def _above_zero(shares: Sequence[float] | None, count: int) -> list[float] | None:
    """Check the shares of the mean that is wanted."""
    given = None if shares is None else check_shares(shares, count)
    if given is not None and min(given) <= 0:
        raise LossError(f"Expected shares above 0 of the mean that is learned but got {min(given):g}.")
    return given


def _module(first: NetworkLike) -> nn.Module:
    """Return the first network if it runs."""
    if not isinstance(first, nn.Module):
        raise ArchitectureError(
            "Expected the first network to be a module, which can be run, but got a state."
        )
    return first


def _measure(
    first: nn.Module, data: AlignmentData, criterion: Criterion | None, batch: BatchAdapter | None
) -> Criterion:
    """Return the criterion for a network's outputs."""
    measure = criterion_for(first, data.validation[0], criterion, None, batch)
    if measure is None:
        raise LossError("Expected a criterion for batches without labels but got none: pass criterion=.")
    return measure


def _symmetry(
    first: nn.Module | None, spec: PermutationSpec | None, example_inputs: ExampleInputs
) -> PermutationSpec:
    """Return the symmetries, given ones verified where they can be.

    Without a spec a network that runs is needed, and inputs.
    """
    if first is not None:
        return requested_symmetry(first, spec, example_inputs, check=True)
    if spec is None:
        raise ArchitectureError(
            "Expected a module and example inputs, to discover the symmetries with, or a spec, but got neither: "
            "pass example_inputs= or spec=."
        )
    return spec


def _loss(
    criterion: Criterion, repair: RepairAlongPath | None, concentration: float, **options: Any
) -> SimplexLoss:
    """Return the loss at random means.

    REPAIR comes before it, if asked for.
    """
    if repair is None:
        return SimplexLoss(criterion, concentration, **options)
    return RepairSimplexLoss(criterion, repair, concentration, **options)


def _scales(
    first: nn.Module,
    spec: PermutationSpec,
    rescale: bool | RescalingSpec,
    repair: bool,
    example_inputs: ExampleInputs,
) -> bool | RescalingSpec:
    """Return the rescalings to learn.

    REPAIR knows no mean of a unit and its negative, so signs stay with it.
    """
    if rescale is False or not repair:
        return rescale
    if rescale is True:
        rescaling = discover_rescaling(first, spec, example_inputs, signs=False)
    else:
        rescaling = requested_rescaling(first, spec, rescale, example_inputs).without_signs()
    return rescaling if rescaling.generators else False
