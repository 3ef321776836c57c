"""Rows over every symmetry of a network: both are brought into canonical form, then turned, not only permuted."""

from __future__ import annotations

import time
from typing import Any

from torch.nn import functional as F

import sinkhorn_rebasin
from experiments.compare_methods.matching import MATCHING_BATCH
from experiments.compare_methods.ours import data_of, held_out_of, trained_on
from experiments.compare_methods.pair import Outcome, Pair
from experiments.compare_methods.setting import Setting
from sinkhorn_rebasin import activation_matching, canonicalize, discover_continuous, weight_matching
from sinkhorn_rebasin.front import answered_images
from sinkhorn_rebasin.front.larger_pair import larger_pair


def weights(pair: Pair, setting: Setting) -> Outcome:
    """Weight matching over every symmetry: no data."""
    return _matched(pair, setting, by_activations=False)


def activations(pair: Pair, setting: Setting) -> Outcome:
    """Activation matching over every symmetry."""
    return _matched(pair, setting, by_activations=True)


def learned(pair: Pair, setting: Setting) -> Outcome:
    """Maps learned on the loss between the networks, by one call of :func:`sinkhorn_rebasin.align`."""
    recipe = setting.recipe
    statistics = trained_on(pair, recipe, max(recipe.start_samples, recipe.statistics_samples))
    data = data_of(pair, recipe).train_dataloader(), held_out_of(pair, recipe)
    return _learned(pair, setting, *data, statistics=statistics)


def drawn(pair: Pair, setting: Setting) -> Outcome:
    """The same without data: images are drawn, and both networks' answers stand for labels."""
    networks, inputs = (pair.reference, pair.target), pair.data.train_images[:2]
    images = answered_images(*networks, inputs, batch_size=setting.recipe.batch_size, seed=pair.seed)
    return _learned(pair, setting, images, None, criterion=F.cross_entropy)


def _learned(pair: Pair, setting: Setting, *data: Any, **options: Any) -> Outcome:
    """Align on training and held-out batches."""
    inputs = pair.data.train_images[:2]
    folded = setting.fold_batch_norm and discover_continuous(
        pair.target, pair.spec, inputs, fold_batch_norm=True
    )
    result = sinkhorn_rebasin.align(
        *(pair.reference, pair.target, *data),
        example_inputs=inputs,
        spec=pair.spec,
        symmetry=folded or "full",
        expand=setting.expand,
        recipe=setting.recipe,
        seed=pair.seed,
        trainer={"accelerator": "cpu"},
        **options,
    )
    notes = {"start": result.start.replace("_", " "), "history": result.history, "told": list(result.notes)}
    rebasin = result.rebasin
    return Outcome(
        rebasin.rebased_state(hard=True),
        result.seconds,
        notes=notes,
        reference=rebasin.reference_state(),
        network=rebasin.reference,
        spec=rebasin.spec,
    )


def _matched(pair: Pair, setting: Setting, *, by_activations: bool) -> Outcome:
    """Find the symmetries, fold, match; all of it is counted."""
    inputs = pair.data.train_images[:2]
    _ = pair.spec  # discovered once for all methods, and not counted
    started = time.perf_counter()
    larger = larger_pair(
        *(pair.reference, pair.target, pair.spec, "full", inputs), untied=False, expanded=setting.expand
    )
    spec = pair.spec if larger.spec is None else larger.spec
    continuous = discover_continuous(larger.target, spec, inputs, fold_batch_norm=setting.fold_batch_norm)
    networks = [canonicalize(net, spec, continuous, inputs) for net in (larger.reference, larger.target)]
    if by_activations:
        data = pair.batches(setting.budget.images, MATCHING_BATCH)
        alignment = activation_matching(*networks, spec, data=data, symmetry=continuous or None)
    else:
        alignment = weight_matching(*networks, spec, symmetry=continuous or None, generator=pair.generator())
    rebased = alignment.apply(networks[1])
    seconds = time.perf_counter() - started
    notes = {
        "symmetries": {symmetry.group.name: symmetry.kind for symmetry in continuous.symmetries},
        "told": list(larger.told),
    }
    reference = networks[0].state_dict()
    return Outcome(rebased, seconds, notes=notes, reference=reference, network=networks[0], spec=spec)
