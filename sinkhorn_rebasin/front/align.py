"""The front door in one file: two networks and data in, an aligned network and what it took out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from sinkhorn_rebasin._typing import BatchAdapter, Criterion, ExampleInputs, Heads, NetworkLike
from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.front.learning import Learning
from sinkhorn_rebasin.front.preparation import prepared, seeded
from sinkhorn_rebasin.front.prepared_pair import Prepared
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.front.result import AlignmentResult
from sinkhorn_rebasin.front.without_data import matched_by_weights
from sinkhorn_rebasin.losses import RebasinLoss
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.rebasin.requested import RequestedSymmetry


def align(
    reference: NetworkLike,
    target: NetworkLike,
    train: Any = None,
    validation: Any = None,
    *,
    criterion: Criterion | None = None,
    loss: RebasinLoss | None = None,
    batch: BatchAdapter | None = None,
    example_inputs: ExampleInputs = None,
    spec: PermutationSpec | None = None,
    rescale: bool | RescalingSpec = True,
    symmetry: RequestedSymmetry = "full",
    untie: bool = False,
    expand: bool = False,
    repair: bool = False,
    recipe: Recipe | None = None,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
    statistics: Any = None,
    progress: bool = True,
    ignore: Sequence[str] = (),
    heads: Heads = "reference",
) -> AlignmentResult:
    r"""Align one network with another.

    The symmetries are discovered and verified. Several matching methods give a start: the best on held-out data, or
    one that the recipe names before it and that is within a standard error of it. Short trials choose how fast and
    how soft the permutations are. They and the scales are annealed from the start in cycles, each of which begins at
    the best so far. Scales are settled at hard permutations in a last fit. Each fit keeps what has the lowest mean
    loss

    .. math:: \frac1n \sum_{i=1}^{n} \mathcal C\bigl((1-\lambda_i)\, \pi(\theta_T) + \lambda_i\, \theta_R\bigr)

    along the path on held-out data, or another figure that the recipe names. The start is kept unless the fits gain
    more than chance would, by Student's test of paired differences of held-out samples at a level of 5 %. Ctrl-C ends
    a fit and returns the best so far. Neither the networks nor the data nor any random state is changed, and a seed
    gives the same result on the same machine.

    Args:
        reference: the network that stays, :math:`\theta_R`.
        target: the network that is moved, :math:`\theta_T`; of the same architecture. One of the two may be a state,
            a checkpoint or the path of one, which the other's module runs.
        train: a DataLoader, a list of batches, or anything that can be read again and again. None aligns by the
            weights alone, in seconds. A batch is (inputs, labels), a dict with labels, or what ``batch`` or ``loss``
            understands.
        validation: held-out batches, which decide what is kept. None keeps a part of ``train`` out: the last tenth
            of a list of batches, or a tenth of a DataLoader's dataset, drawn with the seed, but at least 30 samples.
            Fewer than 100 are parted into folds, unless the recipe bounds the seconds or the Trainer has a strategy:
            what fits without one fold each gain decides on a last fit on all samples.
        criterion: (outputs, labels) to the mean loss of a batch. None is the network's own loss if it returns one
            for a dict with labels, and cross entropy otherwise.
        loss: a callable ``(rebasin, batch)`` to a scalar, which is trained instead of the criterion at random points
            of the path. Where batches have no labels it also decides what is kept.
        batch: a function from a batch to (inputs, labels), for data that yield something else.
        example_inputs: what the networks take; by default from the first batch.
        spec: the symmetries, instead of discovering them. A buffer that both networks share and do not train, such as
            the masks of an autoregressive network, moves with its units, unless it is held:
            ``discover_symmetry(reference, x).holding(reference, "*.mask")``.
        rescale: learn scales and signs too, where they change nothing; or the rescalings themselves.
        symmetry: ``"full"``, also the continuous ones, where there are any: both networks are brought into
            canonical form first, in their own class, and maps are learned in place of permutations.
            ``"permutation"`` leaves the networks as they are. A :class:`ContinuousSpec` is taken as it is.
        untie: give tied parameters a tensor each in both networks first: see :func:`untie`. The result has more
            parameters and says so.
        expand: turn the gain of a norm that cannot be folded into a matrix, in both networks: see :func:`expand`.
            Where the embedding is the head too, the stream turns only then. The result says so.
        repair: align for networks that REPAIR puts right. Permutations alone are learned then.
        recipe: how it is trained; see :class:`Recipe`.
        seed: of everything that is drawn.
        trainer: options of Lightning's Trainer, such as accelerator, devices, precision, logger, callbacks or
            strategy.
        statistics: training batches for activation matching, batch norm and REPAIR; by default the first ones of
            ``train``. Useful where training batches are augmented.
        progress: show a bar with the barrier so far.
        ignore: layers that each network keeps for itself, such as heads of other classes, by name or pattern. Last
            layers of other shapes are ignored without being named.
        heads: whose ignored layers the networks of the path have, so which network's labels the data hold:
            ``"reference"`` or ``"target"``. The aligned target has its own in either case.

    Returns:
        The aligned network and what it took; ``print`` it.

    Raises:
        ArchitectureError: the networks differ, which is told by the first tensor, or nothing can be permuted.
        SymmetryError: a symmetry changes the function.
        DataError: data that are empty, read only once, without labels, or cannot be split.
        LossError: a loss that is no finite number, or that needs other data.
        RecipeError: no recipe.

    Example:
        >>> from torch import nn
        >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
        >>> batches = [(torch.randn(16, 4), torch.randint(3, (16,))) for _ in range(10)]
        >>> short = Recipe(steps=10, cycles=1, closing_steps=5, evaluate_every=5)
        >>> result = align(*nets, batches, recipe=short, progress=False, trainer={"accelerator": "cpu"})
        >>> merged = result.merge(0.5)
        >>> result.after.losses.mean() <= result.before.losses.mean() + 1
        tensor(True)

    Source: Guerrero-Peña et al., "Re-basin via implicit Sinkhorn differentiation" (2023); the recipe is this
    package's.
    """
    began = time.monotonic()
    recipe = Recipe() if recipe is None else recipe
    with torch.inference_mode(False), seeded(seed):
        pair = prepared(
            *(reference, target, train, validation),
            criterion=criterion,
            loss=loss,
            batch=batch,
            example_inputs=example_inputs,
            spec=spec,
            rescale=rescale,
            symmetry=symmetry,
            untied=untie,
            expanded=expand,
            repair=repair,
            recipe=recipe,
            seed=seed,
            statistics=statistics,
            trainer=trainer or {},
            ignore=ignore,
            heads=heads,
        )
    with torch.inference_mode(False), seeded(seed):
        before = _path_before(pair)
        if pair.judge is None or pair.train is None:
            return _by_weights(pair, recipe, seed, began, before)
        learning = Learning(pair, pair.judge, recipe, seed, trainer or {}, progress)
        return _by_data(pair, learning, began, before)


def _by_data(
    pair: Prepared,
    learning: Learning,
    began: float,
    before: PathEvaluation | None,
) -> AlignmentResult:
    """Learn from the best start."""
    found = learning.learned(began)
    told = _told(pair, found.rebasin, learning.recipe, learning.seed, began)
    return AlignmentResult(
        found.rebasin.eval(),
        start=found.start.name,
        starts=found.start.verdicts,
        before=before,
        after=found.after if isinstance(found.after, PathEvaluation) else None,
        history=found.history,
        steps=found.steps,
        interrupted=found.interrupted,
        **{**told, "notes": (*told["notes"], *found.notes)},
    )


def _by_weights(
    pair: Prepared, recipe: Recipe, seed: int, began: float, before: PathEvaluation | None
) -> AlignmentResult:
    """Match weights alone, and judge the result where there are held-out data."""
    networks = pair.reference, pair.target, pair.spec
    name, rebasin = matched_by_weights(
        *networks, pair.rescaling, pair.continuous, recipe.restarts, seed, heads=pair.heads
    )
    after = None if pair.judge is None else pair.judge.of_rebasin(rebasin)
    return AlignmentResult(
        rebasin.eval(),
        start=name,
        before=before,
        after=after if isinstance(after, PathEvaluation) else None,
        **_told(pair, rebasin, recipe, seed, began),
    )


def _path_before(pair: Prepared) -> PathEvaluation | None:
    """Evaluate the path from the target as it is."""
    if pair.judge is None or pair.judge.criterion is None:
        return None
    reference, target = pair.given
    return replace(pair.judge, reference=reference, target=target).of_state(tensors_of(target))


def _told(
    pair: Prepared, rebasin: SinkhornRebasin, recipe: Recipe, seed: int, began: float
) -> dict[str, Any]:
    """What every result tells."""
    return {
        "seconds": time.monotonic() - began,
        "function_change": pair.function_change(rebasin),
        "recipe": recipe,
        "seed": seed,
        "held_out": pair.held_out,
        "repaired": pair.judge is not None and pair.judge.repair,
        "notes": pair.notes,
        "statistics": [] if pair.judge is None else pair.judge.statistics,
        "batch": pair.batch,
    }
