"""Fits on few samples, each without one fold: whether a fit on all of them gains, and after how many steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sinkhorn_rebasin.connectivity import PathEvaluation
from sinkhorn_rebasin.front.data import Fold, first_batches
from sinkhorn_rebasin.front.evaluations import Evaluation, figures_of
from sinkhorn_rebasin.front.fit import Fits
from sinkhorn_rebasin.front.gain import Gain, gain, simplest, together
from sinkhorn_rebasin.front.judge import Verdict
from sinkhorn_rebasin.front.prepared_pair import Prepared
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.front.schedules import best_of, schedules
from sinkhorn_rebasin.front.starts import WITHOUT_DATA, BestStart
from sinkhorn_rebasin.matching import Alignment
from sinkhorn_rebasin.networks.counting import adds_up


@dataclass(frozen=True)
class CrossFit:
    """Hold what fits without one fold each say of a fit on all samples.

    Attributes:
        start: found on all samples; its verdicts, and those of its rivals, are means over folds.
        recipe: of the fit on all samples.
        stops: the step after which each of its stages ends.
        gain: over the start, on the parts of all folds.
        after: mean over folds of the path, or the loss, where the fits were stopped.
        history: means over folds.
        interrupted: whether by Ctrl-C; the start is all there is then.
        notes: what the result should tell.
    """

    start: BestStart
    recipe: Recipe
    stops: Mapping[str, int]
    gain: Gain
    after: Verdict
    history: list[dict[str, Any]]
    interrupted: bool
    notes: tuple[str, ...]


def cross_fitted(
    pair: Prepared,
    recipe: Recipe,
    seed: int,
    trainer: Mapping[str, Any],
    progress: bool,
) -> CrossFit:
    """Train without one fold after the other, and put together what is said on them.

    Starts and schedules are compared on all folds. Every stage ends where the mean over folds is lowest.

    Args:
        pair: with folds.
        recipe: of each fit.
        seed: of what is drawn.
        trainer: options of the Trainer.
        progress: show bars.
    """
    parts = [_without(pair, fold, recipe) for fold in pair.folds]
    start, alignments = _start(pair, parts, recipe, seed)

    def fits_of(number: int, recipe: Recipe) -> Fits:
        """Return what trains without one fold."""
        part = parts[number]
        assert part.judge is not None
        rebasin = part.rebasin_at(alignments[number], seed)
        given = rebasin, part.judge, part.train, recipe, trainer, progress, part.loss
        return Fits(*given, label=f", fold {number + 1} of {len(parts)}", kept={})

    recipe, notes, interrupted = _schedule(pair, fits_of, recipe)
    fitted: list[Fits] = []
    while len(fitted) < len(parts) and not interrupted:
        fits = fits_of(len(fitted), recipe)
        fits.run(time.monotonic())
        interrupted = fits.interrupted
        fitted.append(fits)
    if interrupted or not fitted[0].kept:
        nothing = Gain(0.0, None, len(parts))
        return CrossFit(start, recipe, {}, nothing, start.verdict, [], interrupted, notes)
    evaluations = [fits.kept or {} for fits in fitted]
    stops = {stage: _lowest([each[stage] for each in evaluations]) for stage in evaluations[0]}
    firsts, lasts = zip(*(_ends(each, stops) for each in evaluations), strict=True)
    gained = gain(*(together([each.losses for each in ends]) for ends in (firsts, lasts)))
    shares = _shares(pair)
    after = _mean([each.verdict for each in lasts], shares)
    history = _history(evaluations, shares)
    return CrossFit(start, recipe, stops, gained, after, history, False, (*notes, _told(stops)))


def _without(pair: Prepared, fold: Fold, recipe: Recipe) -> Prepared:
    """Return a pair that learns without a fold, and is judged on it."""
    assert pair.judge is not None
    measured = first_batches(fold.batches, recipe.statistics_samples, pair.batch)
    judge = replace(pair.judge, validation=fold.validation, statistics=measured)
    matched = first_batches(fold.batches, recipe.start_samples, pair.batch)
    return replace(pair, train=fold.train, start_data=matched, judge=judge, folds=())


def _start(
    pair: Prepared, parts: Sequence[Prepared], recipe: Recipe, seed: int
) -> tuple[BestStart, list[Alignment]]:
    """Return the start that is best on all folds, and what it is without each of them."""
    found: dict[str, tuple[Alignment, list[Alignment]]] = {}
    apart = [part.start_methods(recipe, seed) for part in parts]
    for name, method in pair.start_methods(recipe, seed).items():
        alignment = method()
        same = name in WITHOUT_DATA
        found[name] = alignment, [alignment if same else methods[name]() for methods in apart]
    judges = [part.judge for part in parts if part.judge is not None]
    losses, verdicts = [], {}
    for name, (_, each) in found.items():
        judged = list(zip(judges, each, strict=True))
        losses.append(together([judge.on_parts(alignment, recipe.keep) for judge, alignment in judged]))
        verdicts[name] = _mean([judge.of_start(alignment) for judge, alignment in judged], _shares(pair))
    best = list(found)[simplest(losses) if len(losses) > 1 else 0]
    alignment, alignments = found[best]
    return BestStart(best, alignment, verdicts), alignments


def _schedule(
    pair: Prepared, fits_of: Callable[[int, Recipe], Fits], recipe: Recipe
) -> tuple[Recipe, tuple[str, ...], bool]:
    """Return the recipe with the schedule whose trials end lowest, what to tell, and whether it was interrupted."""
    steps = recipe.permutation_steps if pair.continuous else recipe.steps
    heights = []
    for number in range(len(pair.folds)):
        fits = fits_of(number, recipe)
        heights.append(fits.trial_heights(steps))
        if fits.interrupted:
            return recipe, (), True
        if not heights[-1]:
            return replace(recipe, trials=1), (), False
    best = best_of(schedules(recipe), [sum(each) for each in zip(*heights, strict=True)])
    chosen = replace(
        recipe,
        trials=1,
        temperatures=best.temperatures,
        learning_rate=best.learning_rate,
        scale_learning_rate=best.scale_learning_rate,
    )
    told = f"The best of {recipe.trials} short trials is trained: {best}."
    return chosen, (told,), False


def _lowest(folds: Sequence[Sequence[Evaluation]]) -> int:
    """Return the step after which the loss on all folds together is lowest."""
    means = [together([each.losses for each in several]).mean for several in zip(*folds, strict=False)]
    return folds[0][means.index(min(means))].step


def _ends(
    stages: Mapping[str, Sequence[Evaluation]], stops: Mapping[str, int]
) -> tuple[Evaluation, Evaluation]:
    """Return how a fold judges the start, and where the last stage that takes steps is stopped."""
    start = end = next(iter(stages.values()))[0]
    for stage, evaluations in stages.items():
        if stops[stage]:
            end = next(each for each in evaluations if each.step == stops[stage])
    return start, end


def _history(folds: Sequence[Mapping[str, Sequence[Evaluation]]], shares: Tensor) -> list[dict[str, Any]]:
    """Return one entry an evaluation, as a fit's history has it, with the mean over folds."""
    entries, before = list[dict[str, Any]](), 0
    for stage in folds[0]:
        for several in zip(*(each[stage] for each in folds), strict=False):
            mean = _mean([each.verdict for each in several], shares)
            entries.append({"stage": stage, "step": before + several[0].step, **figures_of(mean)})
        before = entries[-1]["step"]
    return entries


def _shares(pair: Prepared) -> Tensor:
    """Return how much the path on each fold counts in that on all samples; sums are added up."""
    samples = torch.tensor([fold.samples for fold in pair.folds], dtype=torch.float64)
    criterion = None if pair.judge is None else pair.judge.criterion
    return torch.ones_like(samples) if criterion and adds_up(criterion) else samples / samples.sum()


def _mean(verdicts: Sequence[Verdict], shares: Tensor) -> Verdict:
    """Return the mean of paths, or of losses."""
    paths = [each for each in verdicts if isinstance(each, PathEvaluation)]
    if not paths:
        losses = [each for each in verdicts if not isinstance(each, PathEvaluation)]
        return float(shares @ torch.tensor(losses, dtype=torch.float64))
    accuracies = [each.accuracies for each in paths if each.accuracies is not None]
    return PathEvaluation(
        paths[0].positions,
        shares @ torch.stack([each.losses for each in paths]),
        shares / shares.sum() @ torch.stack(accuracies) if len(accuracies) == len(paths) else None,
    )


def _told(stops: Mapping[str, int]) -> str:
    """Say what the last fit learns from, and how long its stages take."""
    steps = ", ".join(f"{stage} after {step}" for stage, step in stops.items())
    return f"The last fit learns from all samples; its stages end where the folds did best: {steps} steps."
