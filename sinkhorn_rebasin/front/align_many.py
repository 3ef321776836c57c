"""The front door for several networks: networks and data in, one alignment of all out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, NetworkLike
from sinkhorn_rebasin.assignment.temperature import geometric
from sinkhorn_rebasin.errors import ArchitectureError, LossError
from sinkhorn_rebasin.front.criteria import criterion_for, examples_in
from sinkhorn_rebasin.front.data import AlignmentData, alignment_data
from sinkhorn_rebasin.front.many_starts import starts_of
from sinkhorn_rebasin.front.preparation import seeded
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.losses import SimplexLoss
from sinkhorn_rebasin.losses.base import mean_loss
from sinkhorn_rebasin.merging import JointRebasin, ManyAlignment, match_many
from sinkhorn_rebasin.merging.match_many import ManyMethod
from sinkhorn_rebasin.merging.states import check_shares, states_of
from sinkhorn_rebasin.permutations import PermutationSpec
from sinkhorn_rebasin.symmetry import discover_symmetry


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
    rescale: bool = True,
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

    Soft permutations are annealed first, then scales settle at hard ones. Each fit keeps what has the lowest loss of
    the mean by s on held-out data, the start included. Neither the networks nor the data nor any random state is
    changed, and a seed gives the same result on the same machine.

    Args:
        networks: at least two, of one architecture; without data states will do.
        spec: their symmetries, instead of discovering them.
        train, validation: as for :func:`align`.
        method: of :func:`match_many`; None: the best on held-out data of ``"merge_many"``, ``"frank_wolfe"`` and
            matching each by activations to the first, or ``"merge_many"`` without data.
        criterion: (outputs, labels) to the mean loss of a batch; None: as for :func:`align`.
        concentration: α. At 8 the middle becomes good, at 1 all of the simplex, and infinity is the middle alone.
        shares: s, the mean that is wanted, one number above zero a network; equal without it.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        example_inputs: what the networks take; by default from the first batch.
        ignore: layers that each network keeps for itself, such as heads of other classes, by name or pattern. Last
            layers of other shapes are ignored without being named. The loss is that of the first network's head.
        rescale: learn scales and signs too.
        recipe: how it is trained; None: ``Recipe.many()``.
        seed: of everything that is drawn.
        trainer: options of Lightning's Trainer.
        seconds: of weight matching at most.
        progress: show bars.

    Returns:
        One alignment a network, into the order of the first.

    Raises:
        ArchitectureError: fewer than two networks, or networks that differ; the first tensor is named.
        DataError: data that are empty, read only once, without labels, or cannot be split.

    Example:
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
        >>> many = align_many(nets, example_inputs=torch.randn(2, 4), progress=False)
        >>> merged = many.merge(nets)
        >>> many.method, len(many), merged["0.weight"].shape
        ('merge_many', 3, torch.Size([8, 4]))

    Source: this package; the pair: Guerrero-Peña et al. (2023).
    """
    if len(networks) < 2:
        raise ArchitectureError(f"Expected at least two networks to align but got {len(networks)}.")
    shares = None if shares is None else check_shares(shares, len(networks))
    recipe = recipe or Recipe.many()
    data = (
        None if train is None else alignment_data(train, validation, recipe.validation_samples, seed, batch)
    )
    first = next((network for network in networks if isinstance(network, nn.Module)), None)
    if example_inputs is None and data is not None and first is not None:
        example_inputs = examples_in(first, data.validation[0], batch)
    if spec is None:
        if first is None or example_inputs is None:
            raise ArchitectureError(
                "Expected a module and example inputs, to discover the symmetries with, or a spec, but got neither: "
                "pass example_inputs= or spec=."
            )
        spec = discover_symmetry(first, example_inputs)
    spec = states_of(networks, spec.ignoring(*ignore) if ignore else spec)[1]
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "seconds": seconds, "progress": progress}
    if data is None:
        return match_many(networks, spec, method=method or "merge_many", **options)
    if not isinstance(networks[0], nn.Module):
        raise ArchitectureError(
            "Expected the first network to be a module, which can be run, but got a state."
        )
    samples = data.first(recipe.start_samples, batch)
    starts = starts_of(networks, spec, method, samples, batch, **options)
    measure = criterion_for(networks[0], data.validation[0], criterion, None, batch)
    if measure is None:
        raise LossError("Expected a criterion for batches without labels but got none: pass criterion=.")
    joints = [
        JointRebasin(networks, example_inputs, spec=spec, start=start, rescale=rescale) for start in starts
    ]
    middle = SimplexLoss(measure, float("inf"), middle=shares, batch=batch)
    joint = min(joints, key=lambda each: mean_loss(each, middle, data.validation))
    with seeded(seed):
        loss = SimplexLoss(measure, concentration, middle=shares, batch=batch)
        _learn(joint, loss, middle, data, recipe, trainer, progress)
    return joint.alignment()


def _learn(
    joint: JointRebasin,
    loss: SimplexLoss,
    middle: SimplexLoss,
    data: AlignmentData,
    recipe: Recipe,
    trainer: Mapping[str, Any] | None,
    progress: bool,
) -> None:
    """Anneal soft permutations, then settle the scales; keep the best of each on held-out data."""
    from sinkhorn_rebasin.training import (
        CosineAnnealing,
        JointRebasinModule,
        LossMonitor,
        TemperatureAnnealing,
        WarmRestarts,
        bounded_fit,
    )

    rates = {"lr": recipe.learning_rate, "scale_lr": recipe.scale_learning_rate}
    cycles = max(1, min(recipe.cycles, recipe.steps))
    fits: list[tuple[str, int, dict[str, Any], list[Any]]] = [
        ("soft", recipe.steps, rates, [TemperatureAnnealing(geometric(*recipe.temperatures), cycles)]),
        (
            "closing",
            recipe.closing_steps if joint.log_scales else 0,
            {"hard": True, "scale_lr": recipe.closing_learning_rate},
            [CosineAnnealing(recipe.closing_steps)],
        ),
    ]
    for title, steps, options, callbacks in fits:
        if not steps:
            continue
        monitor = LossMonitor(middle, data.validation, restore_best=True)
        if title == "soft":
            callbacks = [*callbacks, monitor, WarmRestarts(monitor, cycles, recipe.noise)]
        else:
            callbacks = [*callbacks, monitor]
        end = bounded_fit(
            JointRebasinModule(joint, loss, **options),
            data.train,
            steps=steps,
            epoch=recipe.evaluate_every,
            callbacks=callbacks,
            options=trainer or {},
            title=title if progress else None,
        )
        if end.interrupted:
            monitor.restore(joint)  # type: ignore[arg-type]
            return
