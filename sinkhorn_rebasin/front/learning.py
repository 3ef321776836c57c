"""Alignments that are learned from data: what is fitted is kept where it gains more than chance would."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sinkhorn_rebasin.front.cross_fit import cross_fitted
from sinkhorn_rebasin.front.fit import Fits
from sinkhorn_rebasin.front.judge import Judge, Verdict, height
from sinkhorn_rebasin.front.prepared_pair import Prepared
from sinkhorn_rebasin.front.recipe import Recipe
from sinkhorn_rebasin.front.starts import BestStart, best_start
from sinkhorn_rebasin.networks.architecture import tensors_of
from sinkhorn_rebasin.networks.execution import device_of
from sinkhorn_rebasin.rebasin import SinkhornRebasin
from sinkhorn_rebasin.rebasin.candidates import learned_tensors, restore_learned

SAME = 1e-6
"""Figures of one alignment in two computations differ by less than this part."""


@dataclass(frozen=True)
class Learned:
    """Hold an alignment that was learned, or its start, and what it took.

    Attributes:
        rebasin: of the pair.
        start: where the fits began.
        after: the path, or the loss, on data that were kept out.
        history, steps, interrupted: of the fits.
        notes: what the result should tell.
    """

    rebasin: SinkhornRebasin
    start: BestStart
    after: Verdict
    history: list[dict[str, Any]]
    steps: Mapping[str, int]
    interrupted: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Learning:
    """Learn an alignment from data.

    Attributes:
        pair: with training data.
        judge: of the pair.
        recipe: of the fits.
        seed: of what is drawn.
        trainer: options of the Trainer.
        progress: show bars.
    """

    pair: Prepared
    judge: Judge
    recipe: Recipe
    seed: int
    trainer: Mapping[str, Any]
    progress: bool

    def learned(self, began: float) -> Learned:
        """Train from the best start, and go back there should it be better.

        Args:
            began: when the call began, in seconds of ``time.monotonic``.
        """
        return self._in_folds() if self.pair.folds else self._beside_held_out(began)

    def _beside_held_out(self, began: float) -> Learned:
        """Let data that were held out decide."""
        judge = self.judge
        start = best_start(judge, self.pair.start_methods(self.recipe, self.seed), self.recipe.keep)
        fits = self._fits(start, self.recipe)
        rebasin, first = fits.rebasin, learned_tensors(fits.rebasin)
        fits.run(began)
        self._bring_back(rebasin)
        after = judge.of_rebasin(rebasin)
        kept = self._why_kept(start, rebasin, after)
        if kept:
            restore_learned(rebasin, first)
            after = judge.of_rebasin(rebasin)
        notes = fits.notes + kept
        return Learned(rebasin, start, after, fits.history, fits.steps, fits.interrupted, notes)

    def _in_folds(self) -> Learned:
        """Train on all samples, for as long as it helped where each of them was kept out."""
        found = cross_fitted(self.pair, self.recipe, self.seed, self.trainer, self.progress)
        fits = self._fits(found.start, found.recipe, found.stops)
        gained = found.gain.counts and not found.interrupted
        if gained:
            fits.run(time.monotonic())
        self._bring_back(fits.rebasin)
        interrupted = found.interrupted or fits.interrupted
        after = found.after if gained else found.start.verdict
        notes = found.notes if gained or interrupted else (*found.notes, found.gain.told())
        return Learned(fits.rebasin, found.start, after, found.history, fits.steps, interrupted, notes)

    def _fits(self, start: BestStart, recipe: Recipe, stops: Mapping[str, int] | None = None) -> Fits:
        rebasin = self.pair.rebasin_at(start.alignment, self.seed)
        given = rebasin, self.judge, self.pair.train, recipe, self.trainer, self.progress, self.pair.loss
        return Fits(*given, stops=stops)

    def _bring_back(self, rebasin: SinkhornRebasin) -> None:
        """Bring a re-basin back to where the networks are."""
        rebasin.to(device_of(tensors_of(self.pair.reference)))

    def _why_kept(self, start: BestStart, rebasin: SinkhornRebasin, after: Verdict) -> tuple[str, ...]:
        """Tell why the start is kept, if it is.

        It is where training gained no more on held-out data than chance would.
        """
        keep = self.recipe.keep
        first, last = height(start.verdict, keep), height(after, keep)
        if not last < first - SAME * abs(first):
            return ("No step made the start better on held-out data, so it is kept.",)
        gained = self.judge.gain(start.alignment, rebasin, keep)
        return () if gained.counts else (gained.told(),)
