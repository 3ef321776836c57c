"""One pair of text networks of a family, aligned by each method."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from experiments.recurrent_signs.merging import Text
from sinkhorn_rebasin import (
    Alignment,
    MidpointLoss,
    PermutationSpec,
    Recipe,
    RescalingSpec,
    SinkhornRebasin,
    activation_matching,
    align,
    discover_continuous,
    discover_rescaling,
    discover_symmetry,
    evaluate_path,
    weight_matching,
)
from sinkhorn_rebasin.training import RebasinModule

Moved = Callable[[], nn.Module]
CYCLES, RESTARTS, START_BATCHES = 2, 5, 20
RECIPE: dict[str, Any] = {
    **{"cycles": CYCLES, "temperatures": (0.5, 0.05), "trials": 1},
    **{"keep": "midpoint", "points": 3, "evaluate_every": 50},
}


def recurrent_rows(
    pair: int, reference: nn.Module, target: nn.Module, text: Text, steps: int
) -> list[dict[str, Any]]:
    """Merge two recurrent networks: as they are, by weight matching, and by ours."""
    inputs = text.train[0][0][:4]
    spec = discover_symmetry(reference, inputs)
    ways: dict[str, Moved] = {
        "as they are": lambda: target,
        "weight matching": lambda: moved(target, weight_matching(reference, target, spec, restarts=5)),
        "ours": lambda: aligned(reference, target, text, steps),
    }
    return [row("LSTM", pair, name, way, reference, text) for name, way in ways.items()]


def expert_rows(
    pair: int, reference: nn.Module, target: nn.Module, text: Text, steps: int
) -> list[dict[str, Any]]:
    """Merge two mixtures of experts: experts alone in two orders, all by weights in three, and by ours."""
    inputs = text.train[0][0][:4]
    spec = discover_symmetry(reference, inputs)
    experts = {group.name for group in spec.groups if spec.children(group.name) or group.parent}
    alone = spec.without(*(name for name in spec.names if name not in experts))

    def matched(of: PermutationSpec, start: Any) -> Moved:
        return lambda: moved(target, weight_matching(reference, target, of, start=start, restarts=3))

    ways: dict[str, Moved] = {
        "as they are": lambda: target,
        "experts alone, by gates": matched(alone, "gates"),
        "experts alone, by Gram matrices": matched(alone, "grams"),
        "weight matching": matched(spec, "invariants"),
        "weight matching, from gates": matched(spec, "gates"),
        "weight matching, from Gram matrices": matched(spec, "grams"),
        "ours": lambda: learned(reference, target, spec, text, steps),
    }
    return [row("mixture of experts", pair, name, way, reference, text) for name, way in ways.items()]


def aligned(reference: nn.Module, target: nn.Module, text: Text, steps: int) -> nn.Module:
    """Align by `sr.align`: permutations, signs and maps together, then maps at hard permutations.

    Held-out windows decide what is kept.
    """
    recipe = Recipe(
        permutation_steps=steps, map_steps=steps, map_learning_rate=0.1, closing_steps=0, **RECIPE
    )
    options: dict[str, Any] = {"criterion": F.cross_entropy, "recipe": recipe, "progress": False}
    return align(reference, target, text.train, text.held_out, **options).to_model()


def learned(
    reference: nn.Module, target: nn.Module, spec: PermutationSpec, text: Text, steps: int
) -> nn.Module:
    """Learn permutations, signs, scales and maps together; keep what is best halfway on held-out windows.

    It starts where weights or activations match, whichever is better. Cycles of annealing follow, each from the best
    so far.
    """
    inputs = text.train[0][0][:4]
    rescaling = discover_rescaling(reference, spec, inputs)
    continuous = discover_continuous(reference, spec, inputs)
    signed = RescalingSpec(
        rescaling.groups, tuple(each for each in rescaling.generators if each.group not in continuous)
    )
    starts = [
        weight_matching(
            reference, target, spec, rescaling=signed, symmetry=continuous or None, restarts=RESTARTS
        )
    ]
    if not continuous:
        samples = text.train[:START_BATCHES]
        starts.append(activation_matching(reference, target, spec, data=samples, rescaling=signed))
    start = min(starts, key=lambda each: _halfway(moved(target, each), reference, text))
    rebasin = SinkhornRebasin(
        reference,
        target,
        inputs,
        spec=spec,
        start=start,
        rescale=signed,
        symmetry=continuous,
        learn_permutations=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _annealed(rebasin, reference, text, steps)


def _annealed(rebasin: SinkhornRebasin, reference: nn.Module, text: Text, steps: int) -> nn.Module:
    """Anneal in cycles, and return the network that is best halfway on held-out windows."""
    kept = (_halfway(rebasin.eval().to_model(), reference, text), copy.deepcopy(rebasin.state_dict()))
    length = max(1, -(-steps // CYCLES))
    for cycle in range(min(CYCLES, steps)):
        rebasin.load_state_dict(kept[1])
        loss = MidpointLoss(F.cross_entropy)
        module = RebasinModule(rebasin, loss, lr=0.1, scale_lr=0.02, rotation_lr=0.03)
        optimizer = module.configure_optimizers()
        rates = [group["lr"] for group in optimizer.param_groups]
        for step in range(length):
            part = step / length
            rebasin.train().temperature.fill_(0.5 * 0.1**part)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - 0.9 * part)
            optimizer.zero_grad()
            number = cycle * length + step
            module.training_step(text.train[number % len(text.train)], number).backward()
            optimizer.step()
            if (step + 1) % max(1, length // 5) == 0:
                now = _halfway(rebasin.eval().to_model(), reference, text)
                if now < kept[0]:
                    kept = (now, copy.deepcopy(rebasin.state_dict()))
    rebasin.load_state_dict(kept[1])
    return rebasin.eval().to_model()


def _halfway(network: nn.Module, reference: nn.Module, text: Text) -> float:
    """Return the barrier halfway on held-out windows."""
    return evaluate_path((network, reference), text.held_out, F.cross_entropy, points=3).barrier


def row(family: str, pair: int, method: str, way: Moved, reference: nn.Module, text: Text) -> dict[str, Any]:
    """Measure the path on test files."""
    began = time.process_time()
    network = way()
    seconds = time.process_time() - began
    path = evaluate_path((network, reference), text.test, F.cross_entropy, points=7)
    return {
        "family": family,
        "pair": pair,
        "method": method,
        "barrier": path.barrier,
        "seconds": seconds,
        "path": path.to_dict(),
    }


def moved(network: nn.Module, alignment: Alignment) -> nn.Module:
    """Copy a network in the order of an alignment."""
    twin = copy.deepcopy(network)
    twin.load_state_dict(alignment.apply(network))
    return twin
