"""Merges a pair of networks by each method, without and with signs."""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sinkhorn_rebasin import (
    Alignment,
    MidpointLoss,
    SinkhornRebasin,
    activation_matching,
    discover_rescaling,
    discover_symmetry,
    evaluate_path,
    weight_matching,
)
from sinkhorn_rebasin.permutations import PermutationSpec, RescalingSpec
from sinkhorn_rebasin.training import RebasinModule

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Text:
    """Windows to align with, to choose by, and to report."""

    train: list[Batch]
    held_out: list[Batch]
    test: list[Batch]


def compared(
    pair: int, reference: nn.Module, target: nn.Module, text: Text, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row for each method, without and with signs, and one for the networks as they are."""
    inputs = text.train[0][0][:4]
    spec = discover_symmetry(reference, inputs)
    found = discover_rescaling(reference, spec, inputs)
    signed = RescalingSpec(found.groups, tuple(one for one in found.generators if one.kind == "sign"))
    rows = [_row(pair, "as they are", False, (target, reference), text)]
    for signs, rescaling in ((False, None), (True, signed)):
        matched = {
            "weight matching": weight_matching(reference, target, spec, rescaling=rescaling, restarts=5),
            "activation matching": activation_matching(
                reference, target, spec, data=text.train, rescaling=rescaling
            ),
        }
        tried = []
        for method, alignment in matched.items():
            moved = _moved(target, alignment)
            tried.append((_row(pair, method, signs, (moved, reference), text), alignment))
        best = min(tried, key=lambda one: one[0]["held-out barrier"])[1]
        learned = refined(reference, target, spec, best, text, options.steps)
        rows += [*(row for row, _ in tried), _row(pair, "learned", signs, learned, text)]
    return rows


def refined(
    reference: nn.Module,
    target: nn.Module,
    spec: PermutationSpec,
    start: Alignment,
    text: Text,
    steps: int,
) -> tuple[nn.Module, nn.Module]:
    """The pair after learning from a start: at the step, its start included, that is best on held-out windows."""
    rebasin = SinkhornRebasin(
        reference, target, text.train[0][0][:4], spec=spec, start=start, rescale=start.rescaling or False
    )
    module = RebasinModule(rebasin, MidpointLoss(F.cross_entropy), lr=0.1)
    optimizer, kept = module.configure_optimizers(), (float("inf"), target)
    for step in range(steps + 1):
        if step % 10 == 0:
            moved = rebasin.eval().to_model()
            barrier = evaluate_path((moved, reference), text.held_out, F.cross_entropy, points=3).barrier
            kept = min(kept, (barrier, moved), key=lambda one: one[0])
            rebasin.train()
        rebasin.temperature.fill_(0.5 * 0.2 ** (step / steps))
        optimizer.zero_grad()
        module.training_step(text.train[step % len(text.train)], step).backward()
        optimizer.step()
    return kept[1], reference


def _row(
    pair: int, method: str, signs: bool, networks: tuple[nn.Module, nn.Module], text: Text
) -> dict[str, Any]:
    held_out = evaluate_path(networks, text.held_out, F.cross_entropy, points=3)
    path = evaluate_path(networks, text.test, F.cross_entropy, points=11)
    row = {"pair": pair, "method": method, "signs": signs, "held-out barrier": held_out.barrier}
    return {**row, "barrier": path.barrier, "path": path.to_dict()}


def _moved(network: nn.Module, alignment: Alignment) -> nn.Module:
    twin = copy.deepcopy(network)
    twin.load_state_dict(alignment.apply(network))
    return twin
